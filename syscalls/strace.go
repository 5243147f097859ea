package syscalls

import (
	"io"
	"strconv"
	"sync"
	"time"

	"moat/sentry/kernel"
	"moat/sentry/linuxerr"

	"golang.org/x/sys/unix"
)

// Table is the system call table that boot hands to the kernel. With an output set it also prints the calls of straced tasks, as strace(1) does: one
// line a call, or two if the task slept in it meanwhile.
type Table struct {
	fns [maxNr]kernel.SyscallFn

	mu  sync.Mutex // one line at a time
	out io.Writer
}

// NewTable returns the table; out is where --strace prints to, and may be nil.
func NewTable(out io.Writer) *Table {
	makeFutexes()
	tb := &Table{out: out}
	for nr, r := range rows {
		if r != nil {
			tb.fns[nr] = r.Fn
		}
	}
	return tb
}

// Lookup implements kernel.SyscallTable.
func (tb *Table) Lookup(nr uintptr) kernel.SyscallFn {
	if nr < maxNr {
		return tb.fns[nr]
	}
	return nil
}

// trace is what is known of a call while it runs.
type trace struct {
	start time.Time
	// line is what has been printed or is to be printed first: "name(arg, ".
	line []byte
	// done is how many arguments line holds; the others can be printed when the call returns.
	done int
	// slept: line was printed as unfinished.
	slept bool
}

// Enter implements kernel.SyscallTable.
func (tb *Table) Enter(t *kernel.Task, nr uintptr, a kernel.Args) {
	tr, _ := t.Trace.(*trace)
	if tr == nil {
		tr = new(trace)
		t.Trace = tr
	}
	name, sig := describe(nr)
	tr.line, tr.done, tr.slept = append(append(tr.line[:0], name...), '('), 0, false
	// Arguments up to the first that the call fills in are decoded now: the call may change what they point to.
	for tr.done < len(sig) && !isOutput(sig[tr.done]) {
		tr.line = appendArg(tr.line, t, sig, tr.done, a, 0)
		tr.done++
	}
	if nr == unix.SYS_EXIT || nr == unix.SYS_EXIT_GROUP {
		tb.print(t, tr.line, []byte(") = ?"))
	}
	tr.start = time.Now()
}

// Blocked is called when the task goes to sleep in the call.
func (tb *Table) Blocked(t *kernel.Task) {
	if tr, _ := t.Trace.(*trace); tr != nil && !tr.slept {
		tr.slept = true
		tb.print(t, tr.line, []byte(" <unfinished ...>"))
	}
}

// Exit implements kernel.SyscallTable.
func (tb *Table) Exit(t *kernel.Task, nr uintptr, a kernel.Args, ret uintptr, err error) {
	if nr == unix.SYS_EXIT || nr == unix.SYS_EXIT_GROUP {
		return
	}
	tr, _ := t.Trace.(*trace)
	if tr == nil {
		return
	}
	d := time.Since(tr.start)
	b := tr.line
	name, sig := describe(nr)
	if tr.slept {
		b = append(append(append([]byte(nil), "<... "...), name...), " resumed>"...)
	}
	for i := tr.done; i < len(sig); i++ {
		n := ret
		if err != nil {
			n = ^uintptr(0)
		}
		b = appendArg(b, t, sig, i, a, n)
	}
	b = append(b, ") = "...)
	b = appendResult(b, ret, err)
	b = append(b, " <"...)
	b = strconv.AppendFloat(b, d.Seconds(), 'f', 6, 64)
	b = append(b, '>')
	tr.line = tr.line[:0]
	tb.print(t, b, nil)
}

func (tb *Table) print(t *kernel.Task, b, more []byte) {
	if tb.out == nil {
		return
	}
	line := make([]byte, 0, len(b)+len(more)+48)
	line = append(line, '[')
	line = strconv.AppendInt(line, int64(t.TIDIn(t.Kernel().RootPIDNamespace())), 10)
	line = append(line, "] "...)
	line = time.Now().AppendFormat(line, "15:04:05.000000 ")
	line = append(append(append(line, b...), more...), '\n')
	tb.mu.Lock()
	tb.out.Write(line)
	tb.mu.Unlock()
}

// describe is the name and the signature of a call.
func describe(nr uintptr) (string, []string) {
	if nr < maxNr && rows[nr] != nil {
		return rows[nr].Name, kinds(rows[nr].Sig)
	}
	return "syscall_" + strconv.Itoa(int(nr)), nil
}

// appendResult prints what the call returned: a number, an address for calls that return one, or an error.
func appendResult(b []byte, ret uintptr, err error) []byte {
	if err == nil {
		if ret > 1<<31 && int64(ret) > 0 {
			return appendHex(b, uint64(ret))
		}
		return strconv.AppendInt(b, int64(ret), 10)
	}
	e, ok := err.(unix.Errno)
	if !ok {
		return append(append(b, "? "...), err.Error()...)
	}
	switch e {
	case linuxerr.ERESTARTSYS:
		return append(b, "? ERESTARTSYS (To be restarted if SA_RESTART is set)"...)
	case linuxerr.ERESTARTNOINTR:
		return append(b, "? ERESTARTNOINTR (To be restarted)"...)
	case linuxerr.ERESTARTNOHAND:
		return append(b, "? ERESTARTNOHAND (To be restarted if no handler)"...)
	case linuxerr.ERESTART_RESTARTBLOCK:
		return append(b, "? ERESTART_RESTARTBLOCK (Interrupted by signal)"...)
	}
	b = append(b, "-1 "...)
	b = append(b, unix.ErrnoName(e)...)
	return append(append(append(b, " ("...), e.Error()...), ')')
}
