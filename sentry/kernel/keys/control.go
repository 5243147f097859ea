package keys

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel/auth"
)

// keyctl(2)'s operations.

// ID is KEYCTL_GET_KEYRING_ID.
func (s *Store) ID(c Caller, id int32, create bool) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, create, Search)
	if err != nil {
		return 0, err
	}
	return k.serial, nil
}

// Join is KEYCTL_JOIN_SESSION_KEYRING; nil is a session without a name.
func (s *Store) Join(c Caller, name *string) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == nil {
		if err := s.newSession(c); err != nil {
			return 0, err
		}
		return c.session.serial, nil
	}
	for _, k := range s.keys {
		if k == c.session && k.desc == *name && c.may(k, false, Search) == nil {
			return 0, nil
		}
		if k.typ == keyring && k.desc == *name && k.ns == c.UserNS && !k.ofUser && k.valid() == nil && c.may(k, false, Search) == nil {
			k.refs++
			s.setSession(c, k)
			return k.serial, nil
		}
	}
	if *name == "" {
		return 0, unix.EINVAL
	}
	k, err := s.alloc(c, keyring, *name, nil, 0x3f130000, false)
	if err != nil {
		return 0, err
	}
	k.refs = 1
	s.setSession(c, k)
	return k.serial, nil
}

// Update is KEYCTL_UPDATE.
func (s *Store) Update(c Caller, id int32, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, false, Write)
	if err != nil {
		return err
	}
	if k.typ == keyring {
		return unix.EOPNOTSUPP
	}
	if err := checkPayload(k.typ, k.desc, data); err != nil {
		return err
	}
	return s.update(k, data)
}

// Revoke is KEYCTL_REVOKE.
func (s *Store) Revoke(c Caller, id int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, false, Write)
	if err == unix.EACCES {
		k, _, err = s.lookup(c, id, false, SetAttr)
	}
	if err != nil {
		return err
	}
	k.revoked = true
	s.clear(k)
	s.charge(k.uid, 0, -len(k.data), true)
	k.charged -= len(k.data)
	k.data = nil
	return nil
}

// Invalidate is KEYCTL_INVALIDATE: the key leaves all rings.
func (s *Store) Invalidate(c Caller, id int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, false, Search)
	if err != nil {
		return err
	}
	k.invalid = true
	k.refs++
	for _, r := range s.keys {
		s.remove(r, k)
	}
	delete(s.keys, k.serial)
	s.put(k)
	return nil
}

// remove takes k out of ring: ENOENT.
// +checklocks:s.mu
func (s *Store) remove(ring, k *Key) error {
	i := slices.Index(ring.links, k)
	if i < 0 {
		return unix.ENOENT
	}
	ring.links = slices.Delete(ring.links, i, i+1)
	s.reserve(ring, ring.charged-linkBytes)
	s.put(k)
	return nil
}

// Chown is KEYCTL_CHOWN; nil leaves an ID.
func (s *Store) Chown(c Caller, id int32, uid *auth.KUID, gid *auth.KGID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, false, SetAttr)
	if err != nil {
		return err
	}
	if !c.capable() && (uid != nil && *uid != k.uid || gid != nil && *gid != k.gid && !c.InGroup(*gid)) {
		return unix.EACCES
	}
	if uid != nil && *uid != k.uid {
		if err := s.charge(*uid, 1, k.charged, false); err != nil {
			return err
		}
		s.charge(k.uid, -1, -k.charged, true)
		k.uid = *uid
	}
	if gid != nil {
		k.gid = *gid
	}
	return nil
}

// SetPerm is KEYCTL_SETPERM.
func (s *Store) SetPerm(c Caller, id int32, perm uint32) error {
	if perm&^(allPerms*0x01010101) != 0 {
		return unix.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, false, SetAttr)
	if err != nil {
		return err
	}
	if k.uid != c.FSUID && !c.capable() {
		return unix.EACCES
	}
	k.perm = perm
	return nil
}

// SetTimeout is KEYCTL_SET_TIMEOUT, in seconds.
func (s *Store) SetTimeout(c Caller, id int32, n uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, false, SetAttr)
	if err != nil {
		return err
	}
	k.expiry = time.Time{}
	if n > 0 {
		k.expiry = time.Now().Add(time.Duration(n) * time.Second)
	}
	return nil
}

// Describe is KEYCTL_DESCRIBE.
func (s *Store) Describe(c Caller, id int32) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, false, View)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s;%d;%d;%08x;%s", k.typ, c.UserNS.UIDOrOverflow(k.uid), c.UserNS.GIDOrOverflow(k.gid), k.perm, k.desc), nil
}

// Clear is KEYCTL_CLEAR.
func (s *Store) Clear(c Caller, id int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.lookup(c, id, true, Write)
	if err != nil {
		return err
	}
	if k.typ != keyring {
		return unix.ENOTDIR
	}
	s.clear(k)
	return nil
}

// Link is KEYCTL_LINK, Unlink KEYCTL_UNLINK.
func (s *Store) Link(c Caller, id, ringID int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ring, _, err := s.lookup(c, ringID, true, Write)
	if err != nil {
		return err
	}
	k, _, err := s.lookup(c, id, true, Link)
	if err != nil {
		return err
	}
	return s.link(ring, k)
}

// Unlink is KEYCTL_UNLINK.
func (s *Store) Unlink(c Caller, id, ringID int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ring, _, err := s.lookup(c, ringID, false, Write)
	if err != nil {
		return err
	}
	k, _, err := s.lookup(c, id, false, 0)
	if err != nil {
		return err
	}
	if ring.typ != keyring {
		return unix.ENOTDIR
	}
	return s.remove(ring, k)
}

// Search is KEYCTL_SEARCH.
func (s *Store) Search(c Caller, id int32, typ, desc string, destID int32) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ring, possessed, err := s.lookup(c, id, false, Search)
	if err != nil {
		return 0, err
	}
	dest, err := s.dest(c, destID)
	switch {
	case err != nil:
		return 0, err
	case !checkType(typ):
		return 0, unix.ENOKEY
	case ring.typ != keyring:
		return 0, unix.ENOTDIR
	}
	k, err := c.search(ring, possessed, named(typ, desc), true, seen{}, 0)
	if err == nil && dest != nil {
		err = c.may(k, possessed, Link)
	}
	return s.found(c, k, err, dest)
}

// Read is KEYCTL_READ into room bytes: the payload, or the numbers of the keys of a ring.
func (s *Store) Read(c Caller, id int32, room uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, possessed, err := s.lookup(c, id, false, 0)
	switch {
	case err != nil:
		return nil, err
	case c.may(k, possessed, Read) != nil && !possessed:
		return nil, unix.EACCES
	case k.typ == "logon":
		return nil, unix.EOPNOTSUPP
	}
	if err := k.valid(); err != nil {
		return nil, err
	}
	if k.typ != keyring {
		return slices.Clone(k.data), nil
	} else if room&3 != 0 {
		return nil, unix.EINVAL
	}
	var b []byte
	for _, l := range k.links {
		b = hostarch.ByteOrder.AppendUint32(b, uint32(l.serial))
	}
	return b, nil
}

// RequestTo is KEYCTL_SET_REQKEY_KEYRING: the old value.
func (s *Store) RequestTo(c Caller, n int32) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := c.requestTo
	switch {
	case n == -1:
		return old, nil
	case n < -1 || n == 6 || n > 7:
		return 0, unix.EINVAL
	case n == 1 || n == 2:
		if _, err := s.special(c, -n, true); err != nil {
			return 0, err
		}
	}
	c.requestTo = n
	return old, nil
}
