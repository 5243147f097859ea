package loader

import (
	"io"

	"golang.org/x/sys/unix"
	"moat/sentry/memmap"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// VFSFile makes a File of an open file description; it takes over the reference.
func VFSFile(ctx vfs.Context, fd *vfs.FileDescription) File { return &vfsFile{fd, ctx} }

// Description is the open file description behind a File of VFSFile, or nil.
func Description(id memmap.Identity) *vfs.FileDescription {
	switch f := id.(type) {
	case *vfsFile:
		return f.FileDescription
	case *vfs.FileDescription:
		return f
	}
	return nil
}

type vfsFile struct {
	*vfs.FileDescription
	ctx vfs.Context
}

func (f *vfsFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.PRead(f.ctx, usermem.Bytes(p), off, 0)
	if n == 0 && err == nil && len(p) > 0 {
		return 0, io.EOF
	}
	return int(n), err
}

func (f *vfsFile) ConfigureMMap(opts *memmap.MMapOpts) error {
	err := f.FileDescription.ConfigureMMap(f.ctx, opts)
	if err == unix.ENODEV {
		err = unix.ENOEXEC
	}
	if err == nil && opts.Identity == nil {
		opts.Identity = f.FileDescription
	}
	return err
}
