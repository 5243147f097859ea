package kernel

import (
	"golang.org/x/sys/unix"

	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// NSFile is an open file of /proc/PID/ns: setns(2) enters Object (see Task.SetNS).
type NSFile struct {
	vfs.FileDefaults
	Object any
	// Type is the CLONE_NEW* flag.
	Type uint32
	// Path makes a path, with references, to the file of another namespace.
	Path func(object any, typ uint32) vfs.Path
}

// Owned is a namespace that a user namespace owns.
type Owned interface{ UserNamespace() *auth.UserNamespace }

// OwnedBy makes file systems that show a namespace of the task that mounts them belong to the owner of that.
func OwnedBy(ns func(t *Task) Owned) vfs.FileSystemOwner {
	return func(ctx vfs.Context) *auth.UserNamespace {
		if t, ok := ctx.(*Task); ok {
			return ns(t).UserNamespace()
		}
		return ctx.Credentials().UserNS
	}
}

// Requests of ioctl_ns(2).
const (
	nsGetUserNS   = 0xb701
	nsGetParent   = 0xb702
	nsGetNSType   = 0xb703
	nsGetOwnerUID = 0xb704
)

// Ioctl implements vfs.FileImpl: ioctl_ns(2).
func (f *NSFile) Ioctl(ctx vfs.Context, _ *vfs.FileDescription, io usermem.IO, req uint32, arg uintptr) (uintptr, error) {
	t, ok := ctx.(*Task)
	if !ok {
		return 0, unix.ENOTTY
	}
	user, isUser := f.Object.(*auth.UserNamespace)
	switch req {
	case nsGetNSType:
		return uintptr(f.Type), nil
	case nsGetUserNS, nsGetParent:
		if p, ok := f.Object.(*PIDNamespace); ok && req == nsGetParent {
			if p.parent == nil || !t.PIDNamespace().isAncestorOf(p.parent) {
				return 0, unix.EPERM
			}
			return f.open(t, p.parent, unix.CLONE_NEWPID)
		}
		if isUser {
			user = user.Parent
		} else if o, ok := f.Object.(Owned); ok && req == nsGetUserNS {
			user = o.UserNamespace()
		} else {
			return 0, unix.EINVAL
		}
		if user == nil || !t.UserNamespace().IsAncestorOf(user) {
			return 0, unix.EPERM
		}
		return f.open(t, user, unix.CLONE_NEWUSER)
	case nsGetOwnerUID:
		if !isUser {
			return 0, unix.EINVAL
		}
		return 0, usermem.PutUint32(io, arg, t.UserNamespace().UIDOrOverflow(user.Owner))
	}
	return 0, unix.ENOTTY
}

// open gives t a descriptor of another namespace.
func (f *NSFile) open(t *Task, object any, typ uint32) (uintptr, error) {
	p := f.Path(object, typ)
	defer p.DecRef()
	file, err := vfs.OpenPath(t, p, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	return t.InstallFD(file, unix.O_CLOEXEC)
}
