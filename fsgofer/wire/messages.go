package wire

// Op is an operation.
type Op uint16

// The operations. Each has a request XReq and a reply; an error is a header with Errno set and no body.
const (
	OpNone        Op = iota
	OpHello          // HelloReq -> HelloRep, a descriptor: the lifeline
	OpAttach         // AttachReq -> AttachRep
	OpWalk           // WalkReq -> WalkRep, perhaps a descriptor
	OpOpen           // OpenReq -> OpenRep, descriptors
	OpCreate         // CreateReq -> NodeRep, a descriptor
	OpMake           // MakeReq -> NodeRep
	OpLink           // LinkReq -> LinkRep
	OpRename         // RenameReq -> GoneRep
	OpUnlink         // UnlinkReq -> GoneRep
	OpGetAttr        // RefReq -> AttrRep, on a shared mount an O_PATH descriptor
	OpSetAttr        // SetAttrReq -> AttrRep
	OpReadDir        // ReadDirReq -> ReadDirRep
	OpReadlink       // RefReq -> StringRep
	OpGetXattr       // XattrReq -> BytesRep
	OpSetXattr       // XattrReq -> Empty
	OpListXattr      // RefReq -> BytesRep
	OpRemoveXattr    // XattrReq -> Empty
	OpStatFS         // RefReq -> StatFSRep
	OpSync           // SyncReq -> Empty
	OpClose          // CloseReq, no reply
	OpMax
)

var opNames = [OpMax]string{"None", "Hello", "Attach", "Walk", "Open", "Create", "Make", "Link", "Rename", "Unlink", "GetAttr", "SetAttr", "ReadDir", "Readlink",
	"GetXattr", "SetXattr", "ListXattr", "RemoveXattr", "StatFS", "Sync", "Close"}

// String is the operation's name.
func (o Op) String() string { return opNames[o] }

// Version is the protocol's version; both sides are one binary, so it only finds a wrong binary.
const Version = 1

// Handle names a directory, or a file without a name, in the gofer. 0 is none.
type Handle uint32

func (c *Coder) handle(h *Handle) { c.u32((*uint32)(h)) }

// Ref names a file: the file of handle H if Path is empty, else what Path, names separated by single slashes, leads to from the directory
// H. No symlink is followed, and the file may be one itself. If Ino is not 0 and the file found has another inode number, the answer is ESTALE.
type Ref struct {
	H    Handle
	Ino  uint64
	Path string
}

// File makes a request that has a Ref one about that file.
func (r *Ref) File() *Ref { return r }

func (c *Coder) ref(r *Ref) {
	c.all(&r.H, &r.Ino)
	c.str(&r.Path, MaxPath)
	if r.Path != "" && !ValidPath(r.Path) {
		c.bad = true
	}
}

// Attr are a file's attributes (statx(2)). Times are nanoseconds since the epoch. IDs are as the gofer sees them.
type Attr struct {
	Ino, Dev                   uint64
	Mode, Nlink, UID, GID      uint32
	Rdev                       uint64
	Size, Blocks               int64
	Blksize                    uint32
	Atime, Mtime, Ctime, Btime int64
	Attributes                 uint64
}

func (c *Coder) attr(a *Attr) {
	c.all(&a.Ino, &a.Dev, &a.Mode, &a.Nlink, &a.UID, &a.GID, &a.Rdev, &a.Size, &a.Blocks, &a.Blksize, &a.Atime, &a.Mtime, &a.Ctime, &a.Btime, &a.Attributes)
}

// Empty is a body without fields.
type Empty struct{}

func (*Empty) code(*Coder) {}

// HelloReq opens the conversation.
type HelloReq struct{ Version uint32 }

func (m *HelloReq) code(c *Coder) { c.u32(&m.Version) }

// HelloRep comes with the lifeline: a socket that reads as closed when the gofer is gone.
type HelloRep struct{ MaxHandles uint32 }

func (m *HelloRep) code(c *Coder) { c.u32(&m.MaxHandles) }

// AttachReq asks for the root of the mount with the given ID.
type AttachReq struct{ Mount uint32 }

func (m *AttachReq) code(c *Coder) { c.u32(&m.Mount) }

// AttachRep is a mount's root.
type AttachRep struct {
	Root     Handle
	ReadOnly bool
	Attr     Attr
}

func (m *AttachRep) code(c *Coder) { c.all(&m.Root, &m.ReadOnly, &m.Attr) }

// WalkReq walks Names from directory Dir. With Handle directories come with handles, Dir too if it has a path. With Open what the last name
// is comes with a descriptor for reading, if it is a regular file that can be opened. With Settle changes of Dir that are under way are waited for first.
// More are names in Dir: on a shared mount what they are comes with O_PATH descriptors; with Open, regular files come with descriptors for reading.
type WalkReq struct {
	Dir    Ref
	Handle bool
	Open   bool
	Settle bool
	Names  []string
	More   []string
}

func (m *WalkReq) code(c *Coder) {
	c.all(&m.Dir, &m.Handle, &m.Open, &m.Settle)
	list(c, &m.Names, MaxNames, (*Coder).name)
	list(c, &m.More, MaxFDs-1, (*Coder).name)
}

// Node is what Walk found under one name. Handle is set for directories (see WalkReq), Target for symlinks.
type Node struct {
	Handle Handle
	Attr   Attr
	Target string
}

func (c *Coder) node(n *Node) {
	c.all(&n.Handle, &n.Attr)
	c.cstr(&n.Target, MaxPath)
}

// WalkRep has the nodes found, in order. If there are fewer than names, Errno says what stopped the walk, or it is 0: the
// last node is not a directory. Dir is WalkReq.Dir's handle, if one was asked for and is new. Settled: every change that began before the walk had ended.
// Of WalkReq.More what was not found, or could not be opened, has Ino 0 and no descriptor.
type WalkRep struct {
	Dir     Handle
	Nodes   []Node
	Errno   uint32
	Settled bool
	More    []Node
}

func (m *WalkRep) code(c *Coder) {
	c.handle(&m.Dir)
	list(c, &m.Nodes, MaxNames, (*Coder).node)
	c.all(&m.Errno, &m.Settled)
	list(c, &m.More, MaxFDs-1, (*Coder).node)
}

// OpenReq opens a regular file for reading, or for reading and writing. More are names in the directory of Ref.Path: files to be
// opened for reading along with it, on an exclusive mount.
type OpenReq struct {
	Ref   Ref
	Write bool
	More  []string
}

func (m *OpenReq) code(c *Coder) {
	c.all(&m.Ref, &m.Write)
	list(c, &m.More, MaxFDs-1, (*Coder).name)
	if len(m.More) > 0 && m.Ref.Path == "" {
		c.bad = true
	}
}

// OpenRep has the attributes of the file, and of each of OpenReq.More. What could not be opened of those has Ino 0 and no descriptor.
type OpenRep struct {
	Attr Attr
	More []Attr
}

func (m *OpenRep) code(c *Coder) {
	c.attr(&m.Attr)
	list(c, &m.More, MaxFDs-1, (*Coder).attr)
}

// AttrRep is the file's attributes after the operation.
type AttrRep struct{ Attr Attr }

func (m *AttrRep) code(c *Coder) { c.attr(&m.Attr) }

// CreateReq makes a regular file (O_CREAT|O_EXCL) and opens it for reading and writing. An empty name makes a file without a name
// (O_TMPFILE), which comes with a handle.
type CreateReq struct {
	Dir            Handle
	Mode, UID, GID uint32
	Name           string
}

// File is what the request is about.
func (m *CreateReq) File() *Ref { return &Ref{H: m.Dir} }

func (m *CreateReq) code(c *Coder) {
	c.all(&m.Dir, &m.Mode, &m.UID, &m.GID)
	c.str(&m.Name, MaxName)
	if m.Name != "" && !ValidName(m.Name) {
		c.bad = true
	}
}

// NodeRep is a new file, and its directory afterwards.
type NodeRep struct {
	Node Node
	Dir  Attr
}

func (m *NodeRep) code(c *Coder) { c.all(&m.Node, &m.Dir) }

// MakeReq makes what the type in Mode says: a directory (the reply has its handle), symlink, FIFO, socket, or device.
type MakeReq struct {
	Dir            Handle
	Mode, UID, GID uint32
	Rdev           uint64
	Name, Target   string
}

// File is what the request is about.
func (m *MakeReq) File() *Ref { return &Ref{H: m.Dir} }

func (m *MakeReq) code(c *Coder) {
	c.all(&m.Dir, &m.Mode, &m.UID, &m.GID, &m.Rdev, &m.Name)
	c.cstr(&m.Target, MaxPath)
}

// LinkRep has the attributes of the file and of its new directory.
type LinkRep struct{ Attr, Dir Attr }

func (m *LinkRep) code(c *Coder) { c.all(&m.Attr, &m.Dir) }

// LinkReq makes Name in Dir a link to Target (link(2)).
type LinkReq struct {
	Target Ref
	Dir    Handle
	Name   string
}

func (m *LinkReq) code(c *Coder) { c.all(&m.Target, &m.Dir, &m.Name) }

// RenameReq is renameat2(2). With Keep the reply has a handle of the file that was replaced.
type RenameReq struct {
	OldDir, NewDir   Handle
	Flags            uint32
	Keep             bool
	OldName, NewName string
}

func (m *RenameReq) code(c *Coder) {
	c.all(&m.OldDir, &m.NewDir, &m.Flags, &m.Keep, &m.OldName, &m.NewName)
}

// UnlinkReq is unlinkat(2). With Keep the reply has a handle of the file.
type UnlinkReq struct {
	Dir   Handle
	Rmdir bool
	Keep  bool
	Name  string
}

// File is what the request is about.
func (m *UnlinkReq) File() *Ref { return &Ref{H: m.Dir} }

func (m *UnlinkReq) code(c *Coder) { c.all(&m.Dir, &m.Rmdir, &m.Keep, &m.Name) }

// GoneRep answers what took a name away: the handle that was asked for, or 0, and the directories afterwards (New is
// a rename's; all zero otherwise).
type GoneRep struct {
	Handle   Handle
	Dir, New Attr
}

func (m *GoneRep) code(c *Coder) { c.all(&m.Handle, &m.Dir, &m.New) }

// RefReq is a request about one file.
type RefReq struct{ Ref }

func (m *RefReq) code(c *Coder) { c.ref(&m.Ref) }

// What SetAttrReq.Valid says is to be changed. The size is not among it: that is ftruncate(2) of a donated descriptor.
const (
	SetMode uint32 = 1 << iota
	SetUID
	SetGID
	SetAtime
	SetMtime
	setMask = 1<<iota - 1
)

// SetAttrReq changes attributes.
type SetAttrReq struct {
	Ref
	Valid          uint32
	Mode, UID, GID uint32
	Atime, Mtime   int64
}

func (m *SetAttrReq) code(c *Coder) {
	c.all(&m.Ref, &m.Valid, &m.Mode, &m.UID, &m.GID, &m.Atime, &m.Mtime)
	if m.Valid&^setMask != 0 {
		c.bad = true
	}
}

// StringRep is a symlink's target.
type StringRep struct{ S string }

func (m *StringRep) code(c *Coder) { c.cstr(&m.S, MaxPath) }

// XattrReq is about one extended attribute (xattr(7)); Flags are setxattr(2)'s.
type XattrReq struct {
	Ref
	Flags uint32
	Name  string
	Value []byte
}

func (m *XattrReq) code(c *Coder) {
	c.all(&m.Ref, &m.Flags)
	c.cstr(&m.Name, MaxXattrName)
	c.bytes(&m.Value, MaxXattrValue)
}

// BytesRep is an xattr's value, or the NUL-terminated names of all.
type BytesRep struct{ B []byte }

func (m *BytesRep) code(c *Coder) { c.bytes(&m.B, MaxXattrValue) }

// StatFSRep is statfs(2).
type StatFSRep struct {
	Type, Bsize, Blocks, Bfree, Bavail, Files, Ffree, Namelen, Frsize, Flags uint64
}

func (m *StatFSRep) code(c *Coder) {
	c.all(&m.Type, &m.Bsize, &m.Blocks, &m.Bfree, &m.Bavail, &m.Files, &m.Ffree, &m.Namelen, &m.Frsize, &m.Flags)
}

// SyncReq is fsync(2) of a file or directory, or with All syncfs(2).
type SyncReq struct {
	Ref
	All bool
}

func (m *SyncReq) code(c *Coder) { c.all(&m.Ref, &m.All) }

// CloseReq gives handles back.
type CloseReq struct{ Handles []Handle }

func (m *CloseReq) code(c *Coder) { list(c, &m.Handles, MaxCloses, (*Coder).handle) }
