package tmpfs

import (
	"golang.org/x/sys/unix"
	"moat/sentry/memory"
	"moat/sentry/vfs"
)

const (
	sealFutureWrite = 0x10
	sealExec        = 0x20
	allSeals        = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | sealFutureWrite | sealExec
)

// Shm is the kernel's own tmpfs (shm_mnt): memfds and other files without a name.
type Shm struct {
	fs *FileSystem
	km *vfs.KernelMount
}

// NewShm returns the kernel's own instance on mem.
func NewShm(mem *memory.File) (*Shm, error) {
	fs := New(mem, Options{NoLimits: true})
	km, err := vfs.NewKernelMount(fs)
	if err != nil {
		return nil, err
	}
	return &Shm{fs, km}, nil
}

// NewFile returns an open file of size bytes that /proc shows as name, e.g. "/memfd:x" (and " (deleted)"). Without sealing, F_SEAL_SEAL is set.
func (s *Shm) NewFile(ctx vfs.Context, name string, size int64, mode uint16, sealing bool) (*vfs.FileDescription, error) {
	c := ctx.Credentials()
	n, err := s.fs.newNode(ctx, vfs.CreateOptions{Mode: unix.S_IFREG | mode&0o777, UID: c.FSUID, GID: c.FSGID}, ctx.Now())
	if err != nil {
		return nil, err
	}
	r := n.(*regular)
	r.setLinks(0, false)
	r.size.Store(size)
	if sealing {
		r.setSeals(0)
	}
	return s.km.NewFile(ctx, name, r, &file{r: r}, unix.O_RDWR|0o100000 /* O_LARGEFILE */), nil
}

// NewMemfd is memfd_create(2): EINVAL.
func (s *Shm) NewMemfd(ctx vfs.Context, name string, flags uint32) (*vfs.FileDescription, error) {
	const known = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING | unix.MFD_NOEXEC_SEAL | unix.MFD_EXEC
	if flags&^uint32(known) != 0 || flags&unix.MFD_EXEC != 0 && flags&unix.MFD_NOEXEC_SEAL != 0 {
		return nil, unix.EINVAL
	}
	mode := uint16(0o777)
	if flags&unix.MFD_NOEXEC_SEAL != 0 {
		mode = 0o666
	}
	fd, err := s.NewFile(ctx, "/memfd:"+name, 0, mode, flags&(unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL) != 0)
	if err == nil && flags&unix.MFD_NOEXEC_SEAL != 0 {
		fd.Impl().(*file).r.setSeals(sealExec)
	}
	return fd, err
}

// setSeals is for a new file.
func (r *regular) setSeals(seals uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seals = seals
}

// Seals is F_GET_SEALS.
func (f *file) Seals() uint32 {
	f.r.mu.RLock()
	defer f.r.mu.RUnlock()
	return f.r.seals
}

// AddSeals is F_ADD_SEALS: EPERM, EINVAL, EBUSY. Files on mounted instances count as sealed against sealing.
func (f *file) AddSeals(seals uint32) error {
	r := f.r
	if seals&^uint32(allSeals) != 0 {
		return unix.EINVAL
	}
	r.writeMu.Lock()
	defer r.writeMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seals&unix.F_SEAL_SEAL != 0 {
		return unix.EPERM
	}
	if seals&sealExec != 0 && r.mode.Load()&0o111 != 0 {
		seals |= unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | sealFutureWrite
	}
	if seals&unix.F_SEAL_WRITE != 0 && r.seals&unix.F_SEAL_WRITE == 0 && r.maps.Writable() {
		return unix.EBUSY
	}
	r.seals |= seals
	return nil
}
