package loader

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/mm"
	"moat/sentry/usermem"
)

const (
	// maxStrlen is MAX_ARG_STRLEN: the longest argument or environment string, with its NUL.
	maxStrlen = 32 * pageSize
	// argMax is ARG_MAX, which strings and pointers may always take; stackLim is _STK_LIM.
	argMax   = 128 << 10
	stackLim = 8 << 20
	// stackExpand is what setup_arg_pages maps below the strings at once.
	stackExpand = 128 << 10

	atMinSigStkSz = 51
)

// Budget counts the memory that a program's strings may take (fs/exec.c bprm_stack_limits). The strings of argv and envp draw on it.
type Budget struct {
	left uint64
}

// NewBudget returns the budget under a stack limit.
func NewBudget(stackLimit uint64) *Budget {
	return &Budget{max(min(stackLim/4*3, stackLimit/4), argMax)}
}

func (b *Budget) take(n int) error {
	if uint64(n) > b.left {
		return unix.E2BIG
	}
	b.left -= uint64(n)
	return nil
}

// Add draws one string: the file name.
func (b *Budget) Add(s string) error {
	if len(s)+1 > maxStrlen {
		return unix.E2BIG
	}
	return b.take(len(s) + 1)
}

// Strings copies in a NULL-terminated array of strings; a null pointer is an empty array. E2BIG, EFAULT.
func (b *Budget) Strings(m *mm.MemoryManager, addr hostarch.Addr) ([]string, error) {
	if addr == 0 {
		return nil, nil
	}
	var ss []string
	var ptrs [512]byte
	for {
		// Up to the end of a page at a time: nothing behind the NULL need be mapped.
		n := min(len(ptrs), pageSize-int(addr&pageMask))
		if n < 8 {
			n = 8
		}
		c, err := m.CopyIn(addr, ptrs[:n&^7])
		if c < 8 {
			return nil, err
		}
		for i := 0; i+8 <= c; i += 8 {
			p := binary.LittleEndian.Uint64(ptrs[i:])
			if p == 0 {
				return ss, nil
			}
			s, err := m.CopyInString(hostarch.Addr(p), maxStrlen)
			if err == unix.ENAMETOOLONG {
				err = unix.E2BIG
			}
			if err == nil {
				err = b.take(len(s) + 1 + 8)
			}
			if err != nil {
				return nil, err
			}
			ss = append(ss, s)
		}
		addr += hostarch.Addr(c &^ 7)
	}
}

// hwcaps are the host CPU's AT_HWCAP, AT_HWCAP2 and AT_MINSIGSTKSZ.
var hwcaps = sync.OnceValue(func() (h struct{ cap, cap2, sigStk uint64 }) {
	h.sigStk = 2048
	aux, err := unix.Auxv()
	if err != nil {
		return h
	}
	for _, a := range aux {
		switch a[0] {
		case linux.AT_HWCAP:
			h.cap = uint64(a[1])
		case linux.AT_HWCAP2:
			h.cap2 = uint64(a[1])
		case atMinSigStkSz:
			h.sigStk = uint64(a[1])
		}
	}
	return h
})

// stack maps the stack and fills it from the top: file name, environment and argument strings, then what create_elf_tables adds.
func (ld *load) stack(rnd randomness, areas *mm.Areas, prog *placed, base uint64) (uint64, []byte, error) {
	top := (ld.end - rnd.stack) &^ pageMask
	strs := len(ld.im.Execfn) + 1
	for _, ss := range [][]string{ld.a.Envv, ld.im.Argv} {
		for _, s := range ss {
			strs += len(s) + 1
		}
	}
	// Strings, pointers, auxiliary vector, alignment and random bytes.
	need := uint64(strs) + 8*uint64(len(ld.a.Envv)+len(ld.im.Argv)) + 8192 + pageSize
	size := (need + stackExpand + pageMask) &^ pageMask
	if lim := ld.a.StackLimit &^ pageMask; size > lim {
		size = max(lim, (need+pageMask)&^pageMask)
	}
	if size > top {
		return 0, nil, unix.ENOMEM
	}
	perms := hostarch.ReadWrite
	perms.Execute = ld.im.prog.execStack
	_, err := ld.m.MMap(ld.a.Caller, memmap.MMapOpts{
		Addr: hostarch.Addr(top - size), Length: size, Private: true, Fixed: true, GrowsDown: true, Perms: perms, MaxPerms: hostarch.AnyAccess,
	})
	if err != nil {
		return 0, nil, err
	}
	w := &stackWriter{m: ld.m, sp: top - 8}
	execfn := w.str(ld.im.Execfn)
	areas.EnvEnd = hostarch.Addr(execfn)
	envp := w.strs(ld.a.Envv)
	areas.EnvStart = hostarch.Addr(w.sp)
	areas.ArgEnd = areas.EnvStart
	argv := w.strs(ld.im.Argv)
	areas.ArgStart = hostarch.Addr(w.sp)

	w.sp = (w.sp - rnd.align) &^ 15
	platform := w.str("x86_64")
	random := w.bytes(rnd.bytes[:])
	w.sp &^= 15

	auxv := ld.auxv(areas, prog, base, execfn, platform, random)
	words := make([]byte, 0, len(auxv)+8*(len(argv)+len(envp)+3))
	le := binary.LittleEndian
	words = le.AppendUint64(words, uint64(len(argv)))
	for _, list := range [][]uint64{argv, envp} {
		for _, p := range list {
			words = le.AppendUint64(words, p)
		}
		words = le.AppendUint64(words, 0)
	}
	words = append(words, auxv...)
	w.sp = (w.sp - uint64(len(words))) &^ 15
	w.write(w.sp, words)
	areas.StartStack = hostarch.Addr(w.sp)
	return w.sp, auxv, w.err
}

func (ld *load) auxv(areas *mm.Areas, prog *placed, base, execfn, platform, random uint64) []byte {
	h := hwcaps()
	secure := uint64(0)
	if ld.a.Secure {
		secure = 1
	}
	a := ld.a
	var out []byte
	add := func(tag, val uint64) {
		out = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(out, tag), val)
	}
	if areas.VDSO != 0 {
		add(linux.AT_SYSINFO_EHDR, uint64(areas.VDSO))
	}
	add(atMinSigStkSz, h.sigStk)
	add(linux.AT_HWCAP, h.cap)
	add(linux.AT_PAGESZ, pageSize)
	add(linux.AT_CLKTCK, linux.CLOCKS_PER_SEC)
	add(linux.AT_PHDR, prog.phdr)
	add(linux.AT_PHENT, phdrSize)
	add(linux.AT_PHNUM, uint64(len(ld.im.prog.phdrs)))
	add(linux.AT_BASE, base)
	add(linux.AT_FLAGS, 0)
	add(linux.AT_ENTRY, prog.entry)
	add(linux.AT_UID, uint64(a.UID))
	add(linux.AT_EUID, uint64(a.EUID))
	add(linux.AT_GID, uint64(a.GID))
	add(linux.AT_EGID, uint64(a.EGID))
	add(linux.AT_SECURE, secure)
	add(linux.AT_RANDOM, random)
	add(linux.AT_HWCAP2, h.cap2)
	add(linux.AT_EXECFN, execfn)
	add(linux.AT_PLATFORM, platform)
	add(linux.AT_NULL, 0)
	return out
}

// stackWriter writes downwards; the first error sticks.
type stackWriter struct {
	m   usermem.IO
	sp  uint64
	err error
}

func (w *stackWriter) write(addr uint64, b []byte) {
	if w.err == nil {
		_, w.err = w.m.CopyOut(hostarch.Addr(addr), b)
	}
}

func (w *stackWriter) bytes(b []byte) uint64 {
	w.sp -= uint64(len(b))
	w.write(w.sp, b)
	return w.sp
}

func (w *stackWriter) str(s string) uint64 { return w.bytes(append([]byte(s), 0)) }

// strs writes strings so that the first lies lowest, in one copy, and returns their addresses.
func (w *stackWriter) strs(ss []string) []uint64 {
	var all []byte
	at := make([]uint64, len(ss))
	for i, s := range ss {
		at[i] = uint64(len(all))
		all = append(append(all, s...), 0)
	}
	start := w.bytes(all)
	for i := range at {
		at[i] += start
	}
	return at
}
