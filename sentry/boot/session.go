package boot

import (
	"errors"
	"runtime/pprof"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"moat/sentry/boot/rpc"
)

// Session is one control connection.
type Session struct {
	s    *server
	conn *conn

	mu sync.Mutex
	// procs are the processes that this connection started and that have not ended, added is the container: they are killed when it closes.
	procs map[ProcessID]*process // +checklocks:mu
	added *container             // +checklocks:mu
	// gone is closed with the connection.
	gone chan struct{}
}

// serve answers a connection until it closes.
func (s *server) serve(fd int) {
	c := &Session{s: s, conn: &conn{fd: fd}, procs: make(map[ProcessID]*process), gone: make(chan struct{})}
	rpc.Serve(c.conn, c.methods(), c.hangUp, func(method string) {
		switch method { // those that server.answering counts
		case "Start", "WaitExec", "AwaitOOM":
			s.answering.Add(-1)
		}
	})
}

func (c *Session) methods() map[string]rpc.Method {
	return map[string]rpc.Method{
		"Create":    rpc.Do(c.Create),
		"Add":       rpc.Do(c.Add),
		"End":       rpc.Do(c.End),
		"Start":     rpc.Do(c.Start),
		"Detach":    rpc.Do(c.Detach),
		"Status":    rpc.Do(c.Status),
		"Freeze":    rpc.Do(c.Freeze),
		"Wait":      rpc.Do(c.Wait),
		"Exec":      rpc.Do(c.Exec),
		"WaitExec":  rpc.Do(c.WaitExec),
		"Signal":    rpc.Do(c.Signal),
		"Resize":    rpc.Do(c.Resize),
		"Processes": rpc.Do(c.Processes),
		"Update":    rpc.Do(c.Update),
		"Usage":     rpc.Do(c.Usage),
		"AwaitOOM":  rpc.Do(c.AwaitOOM),
		"Stacks":    rpc.Do(c.Stacks),
		"Tasks":     rpc.Do(c.Tasks),
		"Strace":    rpc.Do(c.Strace),
		"Profile":   rpc.Do(c.Profile),
	}
}

func (c *Session) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// hangUp kills the processes that live as long as the connection. Calls that came are still answered: among them are those that wait for the end of a process.
func (c *Session) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.gone)
	for _, p := range c.procs {
		p.kill()
	}
	if c.added != nil {
		c.added.end(ExitStatus{Signal: int(unix.SIGKILL)})
	}
}

// conn is a control connection. Descriptors may come along with requests.
type conn struct {
	fd int

	mu  sync.Mutex
	fds []int // +checklocks:mu
	// gone: Close was called.
	gone bool // +checklocks:mu
}

// maxFDs is what a request may bring (SCM_MAX_FD of a message).
const maxFDs = 253

// Read reads bytes, and keeps descriptors for takeFDs.
func (c *conn) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		n, k, _, _, err := unix.Recvmsg(c.fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if k > 0 {
			c.keep(oob[:k])
		}
		if n == 0 {
			return 0, errors.New("closed")
		}
		return n, nil
	}
}

func (c *conn) keep(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		c.fds = append(c.fds, fds...)
	}
	if len(c.fds) > maxFDs {
		closeFDs(c.fds[maxFDs:])
		c.fds = c.fds[:maxFDs]
	}
}

// takeFDs returns the n descriptors that came first; they are the caller's.
func (c *conn) takeFDs(n int) ([]int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < 0 || n > len(c.fds) {
		return nil, errors.New("the request came without its descriptors")
	}
	fds := c.fds[:n:n]
	c.fds = c.fds[n:]
	return fds, nil
}

func (c *conn) Write(b []byte) (int, error) {
	for done := 0; ; {
		n, err := unix.Write(c.fd, b[done:])
		done += max(n, 0)
		if done == len(b) || err != nil && err != unix.EINTR {
			return done, err
		}
	}
}

// Close closes the connection and what nobody took.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil
	}
	c.gone = true
	closeFDs(c.fds)
	c.fds = nil
	return unix.Close(c.fd)
}

// Create builds the sandbox; its first process does not run yet.
func (c *Session) Create(a *Config, r *StartReply) error {
	var counts []int
	if a.HostMemory {
		var err error
		if counts, err = c.conn.takeFDs(2); err != nil {
			return err
		}
	}
	b, err := c.s.create(a)
	if r.set(err); err != nil {
		closeFDs(counts)
		return nil
	}
	if a.HostMemory {
		b.first.cg.Host = func() (used, inactive, active uint64) { return hostMemory(counts) }
	}
	r.PID = b.first.init.pid
	return nil
}

// Add makes another container in the sandbox, which lives as long as the connection; its first process does not run yet. The descriptors of its gofer's
// socket, of standard input, output and error, of Extra more, of Links and of Loop come with the request.
func (c *Session) Add(a *Config, r *StartReply) error {
	s, err := c.s.sandbox()
	if err != nil {
		return err
	}
	if a.First.Extra < 0 || a.First.Extra > maxFDs {
		return errors.New("bad number of descriptors")
	}
	fds, err := c.conn.takeFDs(4 + a.First.Extra + a.packetSockets())
	if err != nil {
		return err
	}
	b, err := s.newContainer(a)
	c.mu.Lock()
	if err == nil && (c.isGone() || c.added != nil) {
		s.k.EndCgroups(b.cg)
		err = errors.New("one container for each connection")
	}
	if err == nil {
		c.added = b
	}
	c.mu.Unlock()
	if err != nil {
		closeFDs(fds)
		return err
	}
	err = s.add(b, fds)
	r.set(err)
	r.PID = b.init.pid
	return nil
}

// End kills a container that was added, and returns when nothing is left of it.
func (c *Session) End(id *string, _ *None) error {
	b, err := c.s.container(*id)
	if err == nil && b.done == nil {
		err = errors.New("the container is the sandbox")
	}
	if err == nil {
		b.end(ExitStatus{Signal: int(unix.SIGKILL)})
		<-b.done
	}
	return err
}

// Start starts the first process. Doing it again does nothing.
func (c *Session) Start(a *StartArgs, r *StartReply) error {
	c.s.answering.Add(1)
	b, err := c.s.container(a.ID)
	if err != nil {
		return err
	}
	started, err := b.start(a)
	c.s.trim.Reset(trimDelay)
	if started && b == b.first && b.c.Standalone {
		go c.s.end(b.sandbox)
	}
	r.set(err)
	return nil
}

// Detach makes a Standalone sandbox live on when the connection of who started it closes.
func (c *Session) Detach(_ *None, _ *None) error {
	b, err := c.s.sandbox()
	if err == nil && !b.first.c.Standalone {
		err = errors.New("the sandbox cannot live by itself")
	}
	if err == nil {
		c.s.detached.Store(true)
	}
	return err
}

// Status tells how far a container is.
func (c *Session) Status(id *string, st *Status) error {
	return c.s.with(*id, func(b *container) { st.Started, st.Frozen = b.hasStarted(), b.cg.Frozen() })
}

// Freeze stops a container's processes, or lets them go on. Those of other containers are not concerned.
func (c *Session) Freeze(a *FreezeArgs, _ *None) error {
	return c.s.with(a.ID, func(b *container) { b.k.SetFrozen(b.cg, a.On) })
}

// Wait returns when the container that the sandbox was made with, or the one that the connection added, has ended.
func (c *Session) Wait(_ *None, st *ExitStatus) error {
	b, err := c.s.sandbox()
	if err != nil {
		return err
	}
	c.mu.Lock()
	added := c.added
	c.mu.Unlock()
	if added != nil {
		*st = added.ended()
	} else {
		*st = b.wait()
	}
	return nil
}

// Exec starts another process. Its descriptors, standard input, output, error and Extra more, come with the request.
func (c *Session) Exec(a *Process, r *StartReply) error {
	b, err := c.s.container(a.ID)
	if err != nil {
		return err
	}
	fds, err := c.conn.takeFDs(3 + a.Extra)
	if err != nil {
		return err
	}
	p, err := b.exec(a, fds)
	if r.set(err); err != nil {
		return nil
	}
	r.PID = p.pid
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isGone() {
		p.kill()
	} else {
		c.procs[ProcessID{a.ID, p.pid}] = p
	}
	return nil
}

func (c *Session) exec(pid ProcessID) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.procs[pid]; p != nil {
		return p, nil
	}
	return nil, unix.ESRCH
}

// WaitExec returns when a process that this connection started by Exec has ended.
func (c *Session) WaitExec(pid *ProcessID, st *ExitStatus) error {
	c.s.answering.Add(1)
	p, err := c.exec(*pid)
	if err != nil {
		return err
	}
	*st = p.wait()
	c.mu.Lock()
	delete(c.procs, *pid)
	c.mu.Unlock()
	return nil
}

// Signal is kill(2) from outside.
func (c *Session) Signal(a *SignalArgs, _ *None) error {
	b, err := c.s.container(a.ID)
	if err == nil {
		err = b.signal(a)
	}
	return err
}

// Resize sets a terminal's size.
func (c *Session) Resize(w *WinSize, _ *None) error {
	b, err := c.s.container(w.ID)
	if err != nil {
		return err
	}
	p := b.init
	if w.PID != 0 {
		if p, err = c.exec(ProcessID{w.ID, w.PID}); err != nil {
			return err
		}
	}
	if p.term == nil {
		return errors.New("there is no terminal")
	}
	p.term.console.Resize(w.Rows, w.Cols)
	return nil
}

// Processes lists a container's processes.
func (c *Session) Processes(id *string, l *[]ProcessInfo) error {
	return c.s.with(*id, func(b *container) { *l = b.processes() })
}

// Update changes the limits that the sandbox keeps itself.
func (c *Session) Update(a *UpdateArgs, _ *None) error {
	return c.s.with(a.ID, func(b *container) { b.limit(a.Resources) })
}

// Usage tells what a container uses.
func (c *Session) Usage(id *string, u *Usage) error {
	return c.s.with(*id, func(b *container) { *u = b.usage() })
}

// AwaitOOM returns how many processes of a container were killed for want of memory, once that is more than Seen or the container has ended.
func (c *Session) AwaitOOM(a *AwaitOOMArgs, kills *uint64) error {
	defer c.s.answering.Add(1)
	return c.s.with(a.ID, func(b *container) { *kills = b.k.AwaitOOM(b.cg, a.Seen, b.init.tg.Done(), c.gone) })
}

// Stacks answers with the stacks of all goroutines.
func (c *Session) Stacks(_ *None, text *string) error {
	var b strings.Builder
	err := pprof.Lookup("goroutine").WriteTo(&b, 2)
	*text = b.String()
	return err
}
