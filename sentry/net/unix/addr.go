package unix

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
	"moat/sentry/kernel"
	"moat/sentry/vfs"
)

// address is where a socket is bound.
type address struct {
	// raw is the sockaddr_un that getsockname returns.
	raw []byte
	// ns and name are an abstract address; path the bound inode otherwise.
	ns   *kernel.NetNamespace
	name string
	path vfs.Path
}

const (
	// maxAddr is sizeof(struct sockaddr_un).
	maxAddr = 110
	famLen  = 2
)

// names are the abstract addresses in use.
var names struct {
	mu sync.Mutex
	// +checklocks:mu
	m map[absName]*sock
	// next is where autobind looks for a free name. +checklocks:mu
	next uint32
}

// absName: each type of socket has its own names.
type absName struct {
	ns   *kernel.NetNamespace
	name string
	typ  int32
}

// emptyAddr is the address of a socket without one.
func emptyAddr() []byte { return binary.LittleEndian.AppendUint16(nil, unix.AF_UNIX) }

func (a *address) bytes() []byte {
	if a == nil {
		return emptyAddr()
	}
	return a.raw
}

// setAddr gives s its address. +checklocks:s.mu
func (s *sock) setAddr(a *address) {
	s.addr = a
	s.shown.Store(a)
}

func (a *address) release(s *sock) {
	if a.ns != nil {
		names.mu.Lock()
		if k := (absName{a.ns, a.name, s.base.Type}); names.m[k] == s {
			delete(names.m, k)
		}
		names.mu.Unlock()
		return
	}
	vfs.SetBoundSocket(a.path.Inode(), nil)
	a.path.DecRef()
}

// checkAddr validates a sockaddr_un (unix_validate_addr).
func checkAddr(b []byte) error {
	if len(b) <= famLen || len(b) > maxAddr || binary.LittleEndian.Uint16(b) != unix.AF_UNIX {
		return unix.EINVAL
	}
	return nil
}

// pathOf is the file name in an address, up to a NUL.
func pathOf(b []byte) string {
	p := b[famLen:]
	for i, c := range p {
		if c == 0 {
			return string(p[:i])
		}
	}
	return string(p)
}

// find returns the socket that is bound to an address: ECONNREFUSED, or what looking up a path gives.
func find(t *kernel.Task, ns *kernel.NetNamespace, b []byte, typ int32) (*sock, error) {
	if err := checkAddr(b); err != nil {
		return nil, err
	}
	var s *sock
	if b[famLen] == 0 {
		names.mu.Lock()
		s = names.m[absName{ns, string(b[famLen:]), typ}]
		names.mu.Unlock()
	} else {
		p, err := vfs.Resolve(t, t.Cwd(), pathOf(b), vfs.Follow)
		if err != nil {
			return nil, err
		}
		defer p.DecRef()
		if err := vfs.Permission(t, p.Inode(), vfs.MayWrite); err != nil {
			return nil, err
		}
		if p.Inode().Mode()&unix.S_IFMT != unix.S_IFSOCK {
			return nil, unix.ECONNREFUSED
		}
		s, _ = vfs.BoundSocket(p.Inode()).(*sock)
	}
	if s == nil {
		return nil, unix.ECONNREFUSED
	}
	if s.base.Type != typ {
		return nil, unix.EPROTOTYPE
	}
	return s, nil
}

// Bind implements socket.Socket.
func (s *sock) Bind(t *kernel.Task, b []byte) error {
	if len(b) == famLen && binary.LittleEndian.Uint16(b) == unix.AF_UNIX {
		return s.autobind()
	}
	if err := checkAddr(b); err != nil {
		return err
	}
	if b[famLen] == 0 {
		return s.bindAbstract(string(b[famLen:]))
	}
	path := pathOf(b)
	if err := vfs.Mknod(t, t.Cwd(), path, unix.S_IFSOCK|0o777&^t.Umask(), 0); err != nil {
		if err == unix.EEXIST {
			err = unix.EADDRINUSE
		}
		return err
	}
	p, err := vfs.Resolve(t, t.Cwd(), path, 0)
	if err != nil {
		return err
	}
	raw := append(append(emptyAddr(), path...), 0)
	s.mu.Lock()
	if s.addr != nil || s.state == closed {
		s.mu.Unlock()
		p.DecRef()
		_ = vfs.Unlink(t, t.Cwd(), path)
		return unix.EINVAL
	}
	s.setAddr(&address{raw: raw, path: p})
	s.mu.Unlock()
	vfs.SetBoundSocket(p.Inode(), s)
	return nil
}

func (s *sock) bound() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr != nil
}

func (s *sock) bindAbstract(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr != nil {
		return unix.EINVAL
	}
	names.mu.Lock()
	defer names.mu.Unlock()
	k := absName{s.ns, name, s.base.Type}
	if names.m[k] != nil {
		return unix.EADDRINUSE
	}
	if names.m == nil {
		names.m = make(map[absName]*sock)
	}
	names.m[k] = s
	s.setAddr(&address{raw: append(emptyAddr(), name...), ns: s.ns, name: name})
	return nil
}

// autobind binds to a free abstract name of five hexadecimal digits; no error if there is an address already.
func (s *sock) autobind() error {
	if s.bound() {
		return nil
	}
	for range 1 << 20 {
		names.mu.Lock()
		names.next++
		n := names.next & 0xfffff
		names.mu.Unlock()
		err := s.bindAbstract(fmt.Sprintf("\x00%05x", n))
		if err == unix.EINVAL {
			return nil
		}
		if err != unix.EADDRINUSE {
			return err
		}
	}
	return unix.ENOSPC
}

// LocalAddr implements socket.Socket.
func (s *sock) LocalAddr(*kernel.Task) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr.bytes(), nil
}

// PeerAddr implements socket.Socket.
func (s *sock) PeerAddr(*kernel.Task) ([]byte, error) {
	s.mu.Lock()
	peer := s.peer
	s.mu.Unlock()
	if peer == nil {
		return nil, unix.ENOTCONN
	}
	peer.mu.Lock()
	defer peer.mu.Unlock()
	return peer.addr.bytes(), nil
}
