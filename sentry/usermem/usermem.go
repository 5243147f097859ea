// Package usermem is how file systems and sockets move bytes to and from guest memory, or kernel buffers in its place,
// without knowing which.
package usermem

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// IO is an address space that can be copied to and from: a *mm.MemoryManager, or BytesIO.
// Partial copies return the count and unix.EFAULT.
type IO interface {
	CopyOut(addr hostarch.Addr, src []byte) (int, error)
	CopyIn(addr hostarch.Addr, dst []byte) (int, error)
	ZeroOut(addr hostarch.Addr, n int64) (int64, error)

	// Blocks faults ar in for access at and calls fn, once, with the sentry's slices of as much of a prefix of ar as it has
	// directly mapped (host file pages are not; fn may get a bounce buffer in their place, which Blocks then writes back),
	// pinned for the length of fn. fn returns how many bytes it
	// transferred; Blocks returns that. If not even the first byte is accessible, fn is not called: (0, EFAULT).
	// fn must not block for long and must not touch this address space.
	Blocks(ar hostarch.AddrRange, at hostarch.AccessType, fn func(bs [][]byte) (uint64, error)) (uint64, error)
}

// PutUint32 copies a word out to addr, which is an ioctl(2)'s argument; Uint32 copies one in.
func PutUint32(io IO, addr uintptr, v uint32) error {
	var b [4]byte
	hostarch.ByteOrder.PutUint32(b[:], v)
	_, err := io.CopyOut(hostarch.Addr(addr), b[:])
	return err
}

// Uint32 is PutUint32's counterpart.
func Uint32(io IO, addr uintptr) (uint32, error) {
	var b [4]byte
	_, err := io.CopyIn(hostarch.Addr(addr), b[:])
	return hostarch.ByteOrder.Uint32(b[:]), err
}

// IOSequence is a sequence of address ranges of one IO: an iovec array.
// The zero value is an empty sequence.
type IOSequence struct {
	IO    IO
	Addrs []hostarch.AddrRange
}

// Single returns the sequence of the one range [addr, addr+n).
func Single(io IO, addr hostarch.Addr, n int64) IOSequence {
	if n <= 0 {
		return IOSequence{IO: io}
	}
	ar := hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(n)}
	return IOSequence{IO: io, Addrs: []hostarch.AddrRange{ar}}
}

// Bytes returns a sequence over a kernel buffer.
func Bytes(b []byte) IOSequence { return Single(&BytesIO{b}, 0, int64(len(b))) }

// NumBytes is the number of bytes in s.
func (s IOSequence) NumBytes() int64 {
	var n int64
	for _, ar := range s.Addrs {
		n += int64(ar.Length())
	}
	return n
}

// DropFirst returns s without its first n bytes.
func (s IOSequence) DropFirst(n int64) IOSequence {
	a := s.Addrs
	for len(a) > 0 && n >= int64(a[0].Length()) {
		n -= int64(a[0].Length())
		a = a[1:]
	}
	if n > 0 && len(a) > 0 {
		c := append([]hostarch.AddrRange(nil), a...)
		c[0].Start += hostarch.Addr(n)
		a = c
	}
	return IOSequence{IO: s.IO, Addrs: a}
}

// TakeFirst returns the first n bytes of s, or s if it is shorter.
func (s IOSequence) TakeFirst(n int64) IOSequence {
	for i, ar := range s.Addrs {
		l := int64(ar.Length())
		if n >= l {
			n -= l
			continue
		}
		c := append([]hostarch.AddrRange(nil), s.Addrs[:i]...)
		if n > 0 {
			c = append(c, hostarch.AddrRange{Start: ar.Start, End: ar.Start + hostarch.Addr(n)})
		}
		return IOSequence{IO: s.IO, Addrs: c}
	}
	return s
}

// CopyOut copies src to s. A count short of min(len(src), NumBytes) comes with an error.
func (s IOSequence) CopyOut(src []byte) (int, error) {
	done := 0
	for _, ar := range s.Addrs {
		if len(src) == 0 {
			break
		}
		n := min(len(src), int(ar.Length()))
		c, err := s.IO.CopyOut(ar.Start, src[:n])
		done += c
		if err != nil {
			return done, err
		}
		src = src[n:]
	}
	return done, nil
}

// CopyIn fills dst from s. A count short of min(len(dst), NumBytes) comes with an error.
func (s IOSequence) CopyIn(dst []byte) (int, error) {
	done := 0
	for _, ar := range s.Addrs {
		if len(dst) == 0 {
			break
		}
		n := min(len(dst), int(ar.Length()))
		c, err := s.IO.CopyIn(ar.Start, dst[:n])
		done += c
		if err != nil {
			return done, err
		}
		dst = dst[n:]
	}
	return done, nil
}

// ZeroOut zeroes up to n bytes of s.
func (s IOSequence) ZeroOut(n int64) (int64, error) {
	var done int64
	for _, ar := range s.Addrs {
		if n <= 0 {
			break
		}
		l := min(n, int64(ar.Length()))
		c, err := s.IO.ZeroOut(ar.Start, l)
		done += c
		if err != nil {
			return done, err
		}
		n -= l
	}
	return done, nil
}

// ForBlocks calls fn with pinned slices of s, range by range, until s is done or fn transfers less than
// it was given. See IO.Blocks.
func (s IOSequence) ForBlocks(at hostarch.AccessType, fn func(bs [][]byte) (uint64, error)) (int64, error) {
	var done int64
	for _, ar := range s.Addrs {
		for ar.Length() > 0 {
			var given uint64
			n, err := s.IO.Blocks(ar, at, func(bs [][]byte) (uint64, error) {
				for _, b := range bs {
					given += uint64(len(b))
				}
				return fn(bs)
			})
			done += int64(n)
			if err != nil {
				return done, err
			}
			if n == 0 || n < given {
				return done, nil
			}
			ar.Start += hostarch.Addr(n)
		}
	}
	return done, nil
}

// BytesIO is an IO over a kernel buffer whose first byte has address 0.
type BytesIO struct{ B []byte }

func (b *BytesIO) at(addr hostarch.Addr, n int) ([]byte, error) {
	if uint64(addr) >= uint64(len(b.B)) {
		if n == 0 {
			return nil, nil
		}
		return nil, unix.EFAULT
	}
	s := b.B[addr:]
	if n > len(s) {
		return s, unix.EFAULT
	}
	return s[:n], nil
}

// CopyOut implements IO.
func (b *BytesIO) CopyOut(addr hostarch.Addr, src []byte) (int, error) {
	d, err := b.at(addr, len(src))
	return copy(d, src), err
}

// CopyIn implements IO.
func (b *BytesIO) CopyIn(addr hostarch.Addr, dst []byte) (int, error) {
	s, err := b.at(addr, len(dst))
	return copy(dst, s), err
}

// ZeroOut implements IO.
func (b *BytesIO) ZeroOut(addr hostarch.Addr, n int64) (int64, error) {
	d, err := b.at(addr, int(n))
	clear(d)
	return int64(len(d)), err
}

// Blocks implements IO.
func (b *BytesIO) Blocks(ar hostarch.AddrRange, _ hostarch.AccessType, fn func([][]byte) (uint64, error)) (uint64, error) {
	d, err := b.at(ar.Start, int(ar.Length()))
	if len(d) == 0 && err != nil {
		return 0, err
	}
	return fn([][]byte{d})
}
