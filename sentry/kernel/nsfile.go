package kernel

import (
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// NSFile is an open file of /proc/PID/ns: setns(2) enters Object (see Task.SetNS).
type NSFile struct {
	vfs.FileDefaults
	Object any
	// Type is the CLONE_NEW* flag.
	Type uint32
}

const nsGetNSType = 0xb703

// Ioctl implements vfs.FileImpl: ioctl_ns(2), of which NS_GET_NSTYPE is here.
func (f *NSFile) Ioctl(_ vfs.Context, _ *vfs.FileDescription, _ usermem.IO, req uint32, _ uintptr) (uintptr, error) {
	if req == nsGetNSType {
		return uintptr(f.Type), nil
	}
	return f.FileDefaults.Ioctl(nil, nil, nil, req, 0)
}
