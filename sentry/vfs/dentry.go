package vfs

// Dentry is a name in the tree: see doc.go. (Fields are the VFS's own.)
type Dentry struct {
	inode  Inode
	parent *Dentry
	name   string
}

// Inode is the file that d names; nil for a negative dentry.
func (d *Dentry) Inode() Inode { return d.inode }

// Mount is one mount of a FileSystem in a mount namespace.
type Mount struct{ fs FileSystem }

// Path is a place in the tree: a dentry seen through a mount.
type Path struct {
	Mount  *Mount
	Dentry *Dentry
}

// Ok reports whether p is set.
func (p Path) Ok() bool { return p.Mount != nil }

// FileDescription is an open file description (open(2)).
type FileDescription struct{ impl FileImpl }

// Impl is the file system's side.
func (fd *FileDescription) Impl() FileImpl { return fd.impl }
