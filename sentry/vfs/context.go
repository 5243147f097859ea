package vfs

import (
	"time"

	"golang.org/x/sys/unix"

	"moat/sentry/kernel/auth"
)

// Context is what a file operation knows of its caller. *kernel.Task implements it; Background stands for the kernel.
type Context interface {
	// Credentials are the caller's.
	Credentials() *auth.Credentials

	// Block waits until C is readable (or closed). linuxerr.ERESTARTSYS: a signal or a kill came first.
	Block(C <-chan struct{}) error
	// BlockUntil is Block with a deadline on the host's monotonic clock (time.Now()); ETIMEDOUT when it passes.
	// A zero deadline never passes.
	BlockUntil(C <-chan struct{}, deadline time.Time) error

	// Now is CLOCK_REALTIME, for time stamps.
	Now() Time

	// Root and Cwd are the caller's root and working directory; the references are the caller's to keep for the length of the operation (no new reference).
	Root() Path
	Cwd() Path
	// Umask is umask(2).
	Umask() uint16
	// FileSizeLimit is RLIMIT_FSIZE; exceeding it sends SIGXFSZ (SendSIGXFSZ) and returns EFBIG.
	FileSizeLimit() uint64
	SendSIGXFSZ()
}

// DeviceGuard is a Context of a task whose control group may keep it from devices: access is 1 for mknod, 2 for reading and 4 for writing (BPF_DEVCG_ACC_*). EPERM.
type DeviceGuard interface {
	MayUseDevice(access uint32, block bool, rdev uint64) error
}

func mayUseDevice(ctx Context, access uint32, mode uint16, rdev uint64) error {
	if g, ok := ctx.(DeviceGuard); ok {
		return g.MayUseDevice(access, mode&unix.S_IFMT == unix.S_IFBLK, rdev)
	}
	return nil
}

// background is the kernel's own context: root, never interrupted.
type background struct{ creds *auth.Credentials }

// Background returns a Context of the kernel itself, with root's credentials.
func Background() Context { return background{rootCreds} }

// WithCredentials returns a Context of the kernel with other credentials.
func WithCredentials(c *auth.Credentials) Context { return background{c} }

// SetRoot makes c the credentials of Background, before there are any files.
func SetRoot(c *auth.Credentials) { rootCreds = c }

var rootCreds = auth.NewRoot(auth.NewRootNamespace())

func (b background) Credentials() *auth.Credentials { return b.creds }
func (background) Block(C <-chan struct{}) error    { <-C; return nil }
func (background) BlockUntil(C <-chan struct{}, d time.Time) error {
	return BlockHost(C, nil, d)
}
func (background) Now() Time             { return Time(time.Now().UnixNano()) }
func (background) Root() Path            { return Path{} }
func (background) Cwd() Path             { return Path{} }
func (background) Umask() uint16         { return 0 }
func (background) FileSizeLimit() uint64 { return ^uint64(0) }
func (background) SendSIGXFSZ()          {}
