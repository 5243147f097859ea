package wire

import "strings"

// What ReadDirReq.Attrs asks for.
const (
	AttrsNone uint8 = iota
	AttrsDirs       // of directories
	AttrsAll
	attrsMax
)

// ReadDirReq reads entries of Dir from Off: 0, or the Off of an entry read before. Attrs says which entries come with their nodes. Below: where
// that ends the directory, some of those below it are read too, each whole, in the order in which a walk comes by them, as long as there
// are about so many entries in them at most and they fit; then those named Siblings, in the directory of Dir.Path, with what is below them.
type ReadDirReq struct {
	Dir      Ref
	Off      int64
	Attrs    uint8
	Below    uint32
	Siblings []string
}

// MaxSiblings is the most siblings in a ReadDirReq.
const MaxSiblings = 64

func (m *ReadDirReq) code(c *Coder) {
	c.ref(&m.Dir)
	c.i64(&m.Off)
	c.u8(&m.Attrs)
	c.u32(&m.Below)
	list(c, &m.Siblings, MaxSiblings, (*Coder).name)
	if m.Attrs >= attrsMax || len(m.Siblings) > 0 && m.Dir.Path == "" {
		c.bad = true
	}
}

// ReadDirRep has the next entries: Lists[0]. Next is the offset to go on from; EOF: there are no more. The other lists are directories below:
// see Entry.Sub; Siblings says which is the list of ReadDirReq.Siblings, 0: none is. Dir is a handle to go on with, if the directory was named by a path and there is more.
type ReadDirRep struct {
	Dir      Handle
	EOF      bool
	Next     int64
	Lists    []Entries
	Siblings []uint32
}

func (m *ReadDirRep) code(c *Coder) {
	c.handle(&m.Dir)
	c.bool(&m.EOF)
	c.i64(&m.Next)
	list(c, &m.Lists, maxLists, (*Coder).entries)
	list(c, &m.Siblings, MaxSiblings, (*Coder).u32)
	if len(m.Lists) == 0 {
		c.bad = true
	}
}

// maxLists bounds the directories in a ReadDirRep; ReadDirFixed is the encoded length of one without entries, ListFixed what a list takes
// beside its entries.
const (
	maxLists     = MaxMessage / ListFixed
	ReadDirFixed = HeaderLen + 4 + 1 + 8 + 4 + ListFixed + 4
	ListFixed    = 4
)

// Entries are directory entries in their encoded form, valid once decoded: a listing is kept as the few bytes that it came in.
// "." and ".." are left out.
//
// An entry is: its length (2 bytes), type (1), length of the name (1), Sub (2), inode number (8), offset (8), name, and if there is more: the
// encoded attributes, and the target of a symlink.
type Entries string

// Entry is a directory entry. Sub, if not 0, is which of ReadDirRep.Lists has what is below it.
type Entry struct {
	Ino  uint64
	Off  int64
	Type uint8
	Sub  uint16
	Name string
	node string
}

const (
	entryFixed = 2 + 1 + 1 + 2 + 8 + 8
	entrySub   = 4
	attrLen    = 8*2 + 4*4 + 8*3 + 4 + 8*5
	// MaxEntries bounds the entries of a message.
	MaxEntries = MaxMessage / (entryFixed + 1)
)

// EntryLen is the encoded length of an entry; n is nil without a node.
func EntryLen(name string, n *Node) int {
	if n == nil {
		return entryFixed + len(name)
	}
	return entryFixed + len(name) + attrLen + len(n.Target)
}

// AppendEntry appends an entry to b, which has room for it. n is nil without a node.
func AppendEntry(b []byte, ino uint64, off int64, typ uint8, name string, n *Node) []byte {
	size := EntryLen(name, n)
	b = le.AppendUint16(b, uint16(size))
	b = append(b, typ, uint8(len(name)), 0, 0)
	b = le.AppendUint64(b, ino)
	b = le.AppendUint64(b, uint64(off))
	b = append(b, name...)
	if n != nil {
		c := Coder{b: b[:cap(b)], off: len(b), enc: true}
		c.attr(&n.Attr)
		b = append(c.b[:c.off], n.Target...)
	}
	return b
}

// SetSub sets Sub of the entry at b[0:].
func SetSub(b []byte, sub int) { le.PutUint16(b[entrySub:], uint16(sub)) }

// At returns the entry at offset off, which is that of an entry, and the offset of the next.
func (s Entries) At(off int) (e Entry, next int) {
	b := s[off:]
	size, name := int(b[0])|int(b[1])<<8, int(b[3])
	e = Entry{Type: b[2], Sub: uint16(b[4]) | uint16(b[5])<<8, Ino: u64(b[6:]), Off: int64(u64(b[14:])), Name: string(b[entryFixed : entryFixed+name])}
	e.node = string(b[entryFixed+name : size])
	return e, off + size
}

func u64(b Entries) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

// HasNode reports whether the entry came with attributes.
func (e *Entry) HasNode() bool { return e.node != "" }

// Node returns what HasNode promises, without a handle.
func (e *Entry) Node() (n Node) {
	var b [attrLen]byte
	copy(b[:], e.node)
	c := Coder{b: b[:]}
	c.attr(&n.Attr)
	n.Target = e.node[attrLen:]
	return n
}

// entries codes *s, and checks what was decoded.
func (c *Coder) entries(s *Entries) {
	c.str((*string)(s), MaxMessage)
	if c.enc || c.bad {
		return
	}
	for b := *s; b != ""; {
		if len(b) < entryFixed {
			c.bad = true
			return
		}
		size, name := int(b[0])|int(b[1])<<8, int(b[3])
		node := size - entryFixed - name
		if size > len(b) || node < 0 || node > 0 && node < attrLen || node > attrLen+MaxPath {
			c.bad = true
			return
		}
		e, _ := b.At(0)
		if !ValidName(e.Name) || node > 0 && strings.IndexByte(e.node[attrLen:], 0) >= 0 {
			c.bad = true
			return
		}
		b = b[size:]
	}
}
