package syscalls

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/kernel/keys"
)

func init() {
	register(
		partial(248, "add_key", "str str ptr size int", "types user, logon and keyring only: others are ENODEV, as if not configured", sysAddKey),
		partial(249, "request_key", "str str str int", "no upcall to /sbin/request-key: what is not there is ENOKEY", sysRequestKey),
		partial(250, "keyctl", "int hex hex hex hex", "no instantiation by upcall, public keys, DH, persistent rings, restrictions, moving, watching", sysKeyctl),
	)
}

const maxKeyDesc = 4096

func keyCaller(t *kernel.Task) (*keys.Store, keys.Caller) {
	return t.Kernel().Keys(), keys.Caller{Rings: t.Rings(), Credentials: t.Credentials()}
}

// keyType is key_get_type_from_user.
func keyType(t *kernel.Task, a kernel.Arg) (string, error) {
	s, err := shortString(t, a, 32)
	switch {
	case err != nil:
		return "", err
	case s == "":
		return "", unix.EINVAL
	case s[0] == '.':
		return "", unix.EPERM
	}
	return s, nil
}

func keyPayload(t *kernel.Task, addr kernel.Arg, n uint64, limit uint64) ([]byte, error) {
	if n > limit {
		return nil, unix.EINVAL
	}
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n)
	_, err := t.CopyIn(addr.Pointer(), b)
	return b, err
}

func sysAddKey(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[3].Uint64() > 1<<20-1 {
		return 0, unix.EINVAL
	}
	typ, err := keyType(t, a[0])
	if err != nil {
		return 0, err
	}
	desc := ""
	if a[1] != 0 {
		if desc, err = shortString(t, a[1], maxKeyDesc); err != nil {
			return 0, err
		}
		if desc != "" && desc[0] == '.' && typ == "keyring" {
			return 0, unix.EPERM
		}
	}
	data, err := keyPayload(t, a[2], a[3].Uint64(), 1<<20)
	if err != nil {
		return 0, err
	}
	s, c := keyCaller(t)
	id, err := s.Add(c, typ, desc, data, a[4].Int())
	return uintptr(id), err
}

func sysRequestKey(t *kernel.Task, a kernel.Args) (uintptr, error) {
	typ, err := keyType(t, a[0])
	if err != nil {
		return 0, err
	}
	desc, err := shortString(t, a[1], maxKeyDesc)
	if err != nil {
		return 0, err
	}
	if a[2] != 0 {
		if _, err := shortString(t, a[2], hostarch.PageSize); err != nil {
			return 0, err
		}
	}
	s, c := keyCaller(t)
	id, err := s.Request(c, typ, desc, a[3].Int())
	return uintptr(id), err
}

// keyOut copies b out if there is room for all of it, and returns its length either way.
func keyOut(t *kernel.Task, b []byte, err error, addr, size kernel.Arg) (uintptr, error) {
	if err == nil && addr != 0 && size.Uint64() >= uint64(len(b)) && len(b) > 0 {
		_, err = t.CopyOut(addr.Pointer(), b)
	}
	return uintptr(len(b)), err
}

func sysKeyctl(t *kernel.Task, a kernel.Args) (uintptr, error) {
	s, c := keyCaller(t)
	id := a[1].Int()
	serial := func(id int32, err error) (uintptr, error) { return uintptr(id), err }
	switch a[0].Int() {
	case unix.KEYCTL_GET_KEYRING_ID:
		return serial(s.ID(c, id, a[2].Int() != 0))
	case unix.KEYCTL_JOIN_SESSION_KEYRING:
		if a[1] == 0 {
			return serial(s.Join(c, nil))
		}
		name, err := shortString(t, a[1], maxKeyDesc)
		if err == nil && name != "" && name[0] == '.' {
			err = unix.EPERM
		}
		if err != nil {
			return 0, err
		}
		return serial(s.Join(c, &name))
	case unix.KEYCTL_UPDATE:
		data, err := keyPayload(t, a[2], a[3].Uint64(), hostarch.PageSize)
		if err != nil {
			return 0, err
		}
		return 0, s.Update(c, id, data)
	case unix.KEYCTL_REVOKE:
		return 0, s.Revoke(c, id)
	case unix.KEYCTL_INVALIDATE:
		return 0, s.Invalidate(c, id)
	case unix.KEYCTL_CHOWN:
		return 0, keyChown(t, s, c, id, a[2].Uint(), a[3].Uint())
	case unix.KEYCTL_SETPERM:
		return 0, s.SetPerm(c, id, a[2].Uint())
	case unix.KEYCTL_SET_TIMEOUT:
		return 0, s.SetTimeout(c, id, a[2].Uint())
	case unix.KEYCTL_DESCRIBE:
		text, err := s.Describe(c, id)
		if err != nil {
			return 0, err
		}
		return keyOut(t, append([]byte(text), 0), err, a[2], a[3])
	case unix.KEYCTL_GET_SECURITY:
		if _, err := s.Describe(c, id); err == unix.EACCES {
			return 0, unix.ENOKEY
		} else if err != nil {
			return 0, err
		}
		return keyOut(t, []byte{0}, nil, a[2], a[3])
	case unix.KEYCTL_CLEAR:
		return 0, s.Clear(c, id)
	case unix.KEYCTL_LINK:
		return 0, s.Link(c, id, a[2].Int())
	case unix.KEYCTL_UNLINK:
		return 0, s.Unlink(c, id, a[2].Int())
	case unix.KEYCTL_SEARCH:
		typ, err := keyType(t, a[2])
		if err != nil {
			return 0, err
		}
		desc, err := shortString(t, a[3], maxKeyDesc)
		if err != nil {
			return 0, err
		}
		return serial(s.Search(c, id, typ, desc, a[4].Int()))
	case unix.KEYCTL_READ:
		room := a[3].Uint64()
		if a[2] == 0 {
			room = 0
		}
		b, err := s.Read(c, id, room)
		if err != nil {
			return 0, err
		}
		return keyOut(t, b, nil, a[2], a[3])
	case unix.KEYCTL_SET_REQKEY_KEYRING:
		return serial(s.RequestTo(c, id))
	case unix.KEYCTL_ASSUME_AUTHORITY:
		if id < 0 {
			return 0, unix.EINVAL
		} else if id > 0 {
			return 0, unix.ENOKEY
		}
		return 0, nil
	case unix.KEYCTL_INSTANTIATE, unix.KEYCTL_NEGATE, unix.KEYCTL_REJECT, unix.KEYCTL_INSTANTIATE_IOV:
		return 0, unix.EPERM // no key is being made
	}
	return 0, unix.EOPNOTSUPP
}

func keyChown(t *kernel.Task, s *keys.Store, c keys.Caller, id int32, u, g uint32) error {
	var uid *auth.KUID
	var gid *auth.KGID
	if u != auth.NoID {
		k := c.UserNS.MapToKUID(u)
		if uint32(k) == auth.NoID {
			return unix.EINVAL
		}
		uid = &k
	}
	if g != auth.NoID {
		k := c.UserNS.MapToKGID(g)
		if uint32(k) == auth.NoID {
			return unix.EINVAL
		}
		gid = &k
	}
	if uid == nil && gid == nil {
		return nil
	}
	return s.Chown(c, id, uid, gid)
}
