package wire

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of the protocol.
const (
	// MaxMessage is the longest datagram: an xattr value of 64 KiB (XATTR_SIZE_MAX) and what goes with it.
	MaxMessage = 72 << 10
	// HeaderLen is the length of the header.
	HeaderLen = 8
	// MaxName is NAME_MAX.
	MaxName = 255
	// MaxPath is PATH_MAX, without the NUL.
	MaxPath = 4095
	// MaxNames is the most names in one Walk.
	MaxNames = 32
	// MaxXattrName and MaxXattrValue are XATTR_NAME_MAX and XATTR_SIZE_MAX.
	MaxXattrName  = 255
	MaxXattrValue = 64 << 10
	// MaxCloses is the most handles in one Close.
	MaxCloses = 1024
	// MaxFDs is the most descriptors that come with one message; an even number, so that their control message needs no padding.
	MaxFDs = 32
)

var le = binary.LittleEndian

// Coder encodes or decodes one message body. After the first violation of a bound bad is set and nothing more happens.
type Coder struct {
	b   []byte
	off int
	enc bool
	bad bool
}

// Message is the body of a request or a reply.
type Message interface{ code(*Coder) }

// Header starts every message. In a request Errno has flags.
type Header struct {
	Tag   uint16
	Op    Op
	Errno uint32
}

// FlagBusy in a request says that others are in flight, so that the gofer looks for them while it carries this one out.
const FlagBusy = 1

// Encode writes h and m into b and returns the length. EMSGSIZE: m does not fit, or breaks a bound.
func Encode(b []byte, h Header, m Message) (int, error) {
	le.PutUint16(b, h.Tag)
	le.PutUint16(b[2:], uint16(h.Op))
	le.PutUint32(b[4:], h.Errno)
	c := Coder{b: b, off: HeaderLen, enc: true}
	if m != nil {
		m.code(&c)
	}
	if c.bad {
		return 0, unix.EMSGSIZE
	}
	return c.off, nil
}

// DecodeHeader reads the header of b.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, unix.EBADMSG
	}
	return Header{le.Uint16(b), Op(le.Uint16(b[2:])), le.Uint32(b[4:])}, nil
}

// DecodeBody reads the body of b into m. EBADMSG: b is not a valid m.
func DecodeBody(b []byte, m Message) error {
	c := Coder{b: b, off: HeaderLen}
	m.code(&c)
	if c.bad || c.off != len(b) {
		return unix.EBADMSG
	}
	return nil
}

func (c *Coder) next(n int) []byte {
	if c.bad || n > len(c.b)-c.off {
		c.bad = true
		return nil
	}
	b := c.b[c.off : c.off+n]
	c.off += n
	return b
}

func (c *Coder) u8(v *uint8) {
	if b := c.next(1); b == nil {
		return
	} else if c.enc {
		b[0] = *v
	} else {
		*v = b[0]
	}
}

func (c *Coder) u32(v *uint32) {
	if b := c.next(4); b == nil {
		return
	} else if c.enc {
		le.PutUint32(b, *v)
	} else {
		*v = le.Uint32(b)
	}
}

func (c *Coder) u64(v *uint64) {
	if b := c.next(8); b == nil {
		return
	} else if c.enc {
		le.PutUint64(b, *v)
	} else {
		*v = le.Uint64(b)
	}
}

func (c *Coder) i64(v *int64) {
	u := uint64(*v)
	c.u64(&u)
	*v = int64(u)
}

// bool is one byte, 0 or 1.
func (c *Coder) bool(v *bool) {
	var u uint8
	if *v {
		u = 1
	}
	c.u8(&u)
	if u > 1 {
		c.bad = true
	}
	*v = u == 1
}

// all codes fields by their types; a string is a name.
func (c *Coder) all(fields ...any) {
	for _, f := range fields {
		switch f := f.(type) {
		case *uint32:
			c.u32(f)
		case *uint64:
			c.u64(f)
		case *int64:
			c.i64(f)
		case *bool:
			c.bool(f)
		case *string:
			c.name(f)
		case *Handle:
			c.handle(f)
		case *Ref:
			c.ref(f)
		case *Attr:
			c.attr(f)
		case *Node:
			c.node(f)
		default:
			panic("wire: a field of no known type")
		}
	}
}

// count is the length of a list, at most limit.
func (c *Coder) count(n int, limit int) int {
	u := uint32(n)
	c.u32(&u)
	if u > uint32(limit) {
		c.bad = true
	}
	if c.bad {
		return 0
	}
	return int(u)
}

// str is a length and that many bytes.
func (c *Coder) str(s *string, limit int) {
	n := c.count(len(*s), limit)
	b := c.next(n)
	if b == nil {
		return
	}
	if c.enc {
		copy(b, *s)
	} else {
		*s = string(b)
	}
}

func (c *Coder) bytes(s *[]byte, limit int) {
	n := c.count(len(*s), limit)
	b := c.next(n)
	if b == nil {
		return
	}
	if c.enc {
		copy(b, *s)
	} else {
		*s = append([]byte(nil), b...)
	}
}

// name is a single path component.
func (c *Coder) name(s *string) {
	c.str(s, MaxName)
	if !c.bad && !ValidName(*s) {
		c.bad = true
	}
}

// ValidName reports whether s is one component of a path and leads nowhere but down.
func ValidName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= MaxName && strings.IndexByte(s, '/') < 0 && strings.IndexByte(s, 0) < 0
}

// ValidPath reports whether s is one or more components, at most MaxNames, that lead nowhere but down.
func ValidPath(s string) bool {
	if len(s) > MaxPath {
		return false
	}
	for range MaxNames {
		name, rest, more := strings.Cut(s, "/")
		if !ValidName(name) {
			return false
		}
		if !more {
			return true
		}
		s = rest
	}
	return false
}

// cstr is a string without NUL.
func (c *Coder) cstr(s *string, limit int) {
	c.str(s, limit)
	if strings.IndexByte(*s, 0) >= 0 {
		c.bad = true
	}
}

// list codes the elements of *s, at most limit of them; elem codes one.
func list[T any](c *Coder, s *[]T, limit int, elem func(*Coder, *T)) {
	n := c.count(len(*s), limit)
	if c.bad {
		return
	}
	if !c.enc {
		// Grown as the bytes prove it, so that a large count costs nothing by itself.
		*s = make([]T, 0, min(n, 64))
	}
	for i := 0; i < n && !c.bad; i++ {
		if c.enc {
			elem(c, &(*s)[i])
			continue
		}
		var e T
		elem(c, &e)
		*s = append(*s, e)
	}
}
