// Package keys has key rings (keyrings(7)): keys of the types user, logon and keyring, the rings of threads, processes, sessions and users, permissions and
// quotas. There are no upcalls: a key that is requested and is not there is ENOKEY.
//
// Store.mu guards everything; it is a leaf. A Key lives while a ring or a Rings refers to it; its serial number and its quota go with it.
package keys

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
)

// Permissions: of the possessor in bits 24 and up, of the owner from 16, of the group from 8, of others from 0.
const (
	View = 1 << iota
	Read
	Write
	Search
	Link
	SetAttr

	allPerms = View | Read | Write | Search | Link | SetAttr
)

const (
	keyring   = "keyring"
	linkBytes = 4 // KEYQUOTA_LINK_BYTES
	maxDepth  = 6 // of rings in rings (KEYRING_SEARCH_MAX_DEPTH)
	maxUsers  = 4096
	maxKeys   = 100000     // of all users together, rings that nobody pays for among them
	ownRing   = 0x3f010000 // the permissions of rings of threads and processes
)

// Key is one key, or a ring of keys.
type Key struct {
	serial    int32
	typ, desc string
	uid       auth.KUID
	gid       auth.KGID
	ns        *auth.UserNamespace
	perm      uint32
	data      []byte
	links     []*Key
	refs      int
	expiry    time.Time
	revoked   bool
	invalid   bool
	ofUser    bool // one of a user's two rings
	charged   int  // bytes of uid's quota
}

// Rings are a task's; the zero value has none. Guarded by Store.mu.
type Rings struct {
	thread, session *Key
	process         *processRing
	requestTo       int32 // KEYCTL_SET_REQKEY_KEYRING
}

// processRing is shared by the threads of a process.
type processRing struct {
	ring *Key
	refs int
}

// Caller is who asks.
type Caller struct {
	*Rings
	*auth.Credentials
}

type usage struct{ keys, bytes int }

type userRing struct {
	ns      *auth.UserNamespace
	uid     auth.KUID
	session bool
}

// Store is all keys of a container.
type Store struct {
	mu    sync.Mutex
	keys  map[int32]*Key      // +checklocks:mu
	users map[userRing]*Key   // +checklocks:mu
	used  map[auth.KUID]usage // +checklocks:mu
}

// NewStore returns an empty one.
func NewStore() *Store {
	return &Store{keys: map[int32]*Key{}, users: map[userRing]*Key{}, used: map[auth.KUID]usage{}}
}

// Fork returns the rings of a new task: a thread shares the process ring, and has one of its own if the old one has; all share the session's.
func (s *Store) Fork(old Caller, thread bool) Rings {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := old.Rings
	c := Rings{session: r.session, requestTo: r.requestTo}
	if c.session != nil {
		c.session.refs++
	}
	if thread {
		if r.process == nil {
			r.process = &processRing{refs: 1}
		}
		c.process = r.process
		c.process.refs++
		if r.thread != nil {
			c.thread, _ = s.newRing(old, "_tid", ownRing, true)
		}
	}
	return c
}

// Exec drops what execve(2) does, Exit all.
func (s *Store) Exec(r *Rings) { s.drop(r, false) }

// Exit ends a task's rings.
func (s *Store) Exit(r *Rings) { s.drop(r, true) }

func (s *Store) drop(r *Rings, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(r.thread)
	r.thread = nil
	if p := r.process; p != nil {
		if p.refs--; p.refs == 0 {
			s.put(p.ring)
		}
		r.process = nil
	}
	if all {
		s.put(r.session)
		r.session = nil
	}
}

// put drops a reference to k, which may be nil. Rings in rings are no deeper than maxDepth.
// +checklocks:s.mu
func (s *Store) put(k *Key) {
	if k == nil {
		return
	}
	if k.refs--; k.refs > 0 {
		return
	}
	delete(s.keys, k.serial)
	s.clear(k)
	s.charge(k.uid, -1, -k.charged, true)
}

// charge counts keys and bytes against uid's quota: EDQUOT (/proc/sys/kernel/keys).
// +checklocks:s.mu
func (s *Store) charge(uid auth.KUID, keys, bytes int, force bool) error {
	maxKeys, maxBytes := 200, 20000
	if uid == 0 {
		maxKeys, maxBytes = 1000000, 25000000
	}
	u := s.used[uid]
	u.keys, u.bytes = u.keys+keys, u.bytes+bytes
	if !force && (keys > 0 && u.keys > maxKeys || bytes > 0 && u.bytes > maxBytes) {
		return unix.EDQUOT
	}
	if s.used[uid] = u; u == (usage{}) {
		delete(s.used, uid)
	}
	return nil
}

// reserve changes what of uid's quota k takes: EDQUOT.
// +checklocks:s.mu
func (s *Store) reserve(k *Key, bytes int) error {
	err := s.charge(k.uid, 0, bytes-k.charged, false)
	if err == nil {
		k.charged = bytes
	}
	return err
}

// alloc returns a new key without references. force: rings that Linux makes itself are not refused.
// +checklocks:s.mu
func (s *Store) alloc(c Caller, typ, desc string, data []byte, perm uint32, force bool) (*Key, error) {
	if len(s.keys) >= maxKeys {
		return nil, unix.EDQUOT
	}
	k := &Key{typ: typ, desc: desc, uid: c.FSUID, gid: c.FSGID, ns: c.UserNS, perm: perm, data: data, charged: len(desc) + 1 + len(data)}
	if err := s.charge(k.uid, 1, k.charged, force); err != nil {
		return nil, err
	}
	for k.serial < 3 || s.keys[k.serial] != nil {
		k.serial = rand.Int32()
	}
	s.keys[k.serial] = k
	return k, nil
}

// newRing is alloc for a ring that something refers to.
// +checklocks:s.mu
func (s *Store) newRing(c Caller, desc string, perm uint32, force bool) (*Key, error) {
	k, err := s.alloc(c, keyring, desc, nil, perm, force)
	if err == nil {
		k.refs = 1
	}
	return k, err
}

// newSession gives c a session ring without a name: EDQUOT.
// +checklocks:s.mu
func (s *Store) newSession(c Caller) error {
	k, err := s.newRing(c, "_ses", 0x3f030000, c.session == nil)
	if err == nil {
		s.setSession(c, k)
	}
	return err
}

// valid is key_validate.
func (k *Key) valid() error {
	switch {
	case k.invalid:
		return unix.ENOKEY
	case k.revoked:
		return unix.EKEYREVOKED
	case !k.expiry.IsZero() && !time.Now().Before(k.expiry):
		return unix.EKEYEXPIRED
	}
	return nil
}

// may is key_task_permission: EACCES.
func (c Caller) may(k *Key, possessed bool, need uint32) error {
	p := k.perm
	switch {
	case k.uid == c.FSUID:
		p >>= 16
	case p>>8&allPerms != 0 && c.InGroup(k.gid):
		p >>= 8
	}
	if possessed {
		p |= k.perm >> 24
	}
	if p&need != need {
		return unix.EACCES
	}
	return nil
}

// userRing returns one of the rings of c's user, made at first use.
// +checklocks:s.mu
func (s *Store) userRing(c Caller, session bool) (*Key, error) {
	id := userRing{c.UserNS, c.RUID, session}
	if k := s.users[id]; k != nil {
		return k, nil
	}
	if len(s.users) >= maxUsers {
		return nil, unix.EDQUOT
	}
	name := "_uid.%d"
	if session {
		name = "_uid_ses.%d"
	}
	k, err := s.newRing(c, fmt.Sprintf(name, c.UserNS.UIDOrOverflow(c.RUID)), 0x1f3f0000, true)
	if err != nil {
		return nil, err
	}
	s.charge(k.uid, -1, -k.charged, true)
	k.uid, k.gid, k.ofUser = c.RUID, auth.KGID(auth.NoID), true
	s.charge(k.uid, 1, k.charged, true)
	s.users[id] = k
	if session {
		u, err := s.userRing(c, false)
		if err != nil {
			return nil, err
		}
		s.link(k, u)
	}
	return k, nil
}

// setSession makes k, whose reference it takes, the session's ring of c.
// +checklocks:s.mu
func (s *Store) setSession(c Caller, k *Key) {
	s.put(c.session)
	c.session = k
}

// special returns the ring with a number below 0: EINVAL, ENOKEY.
// +checklocks:s.mu
func (s *Store) special(c Caller, id int32, create bool) (_ *Key, err error) {
	switch id {
	case unix.KEY_SPEC_THREAD_KEYRING:
		if c.thread == nil && create {
			c.thread, err = s.newRing(c, "_tid", ownRing, true)
		}
		if c.thread != nil || err != nil {
			return c.thread, err
		}
	case unix.KEY_SPEC_PROCESS_KEYRING:
		if c.process == nil {
			c.process = &processRing{refs: 1}
		}
		if c.process.ring == nil && create {
			c.process.ring, err = s.newRing(c, "_pid", ownRing, true)
		}
		if c.process.ring != nil || err != nil {
			return c.process.ring, err
		}
	case unix.KEY_SPEC_SESSION_KEYRING:
		if c.session == nil {
			u, err := s.userRing(c, true)
			if err != nil {
				return nil, err
			}
			u.refs++
			s.setSession(c, u)
		}
		if c.session.ofUser && create {
			err = s.newSession(c)
		}
		return c.session, err
	case unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING:
		return s.userRing(c, id == unix.KEY_SPEC_USER_SESSION_KEYRING)
	case unix.KEY_SPEC_REQKEY_AUTH_KEY, -8:
	default:
		return nil, unix.EINVAL
	}
	return nil, unix.ENOKEY
}

// lookup is lookup_user_key: the key with a number, and whether c possesses it. need is the permission that c must have, 0 for none.
// +checklocks:s.mu
func (s *Store) lookup(c Caller, id int32, create bool, need uint32) (k *Key, possessed bool, err error) {
	switch {
	case id < 0:
		k, err = s.special(c, id, create)
		possessed = true
	case id == 0:
		err = unix.EINVAL
	default:
		if k = s.keys[id]; k == nil {
			err = unix.ENOKEY
		} else {
			f, _ := s.possessed(c, func(o *Key) bool { return o == k }, false)
			possessed = f != nil
		}
	}
	if err == nil && need != 0 {
		if err = k.valid(); err == nil {
			err = c.may(k, possessed, need)
		}
	}
	return k, possessed, err
}

// possessed looks through the rings of c, for a key that is valid or, if not state, for any.
// +checklocks:s.mu
func (s *Store) possessed(c Caller, match func(*Key) bool, state bool) (*Key, error) {
	rings := []*Key{c.thread, nil, c.session}
	if c.process != nil {
		rings[1] = c.process.ring
	}
	if c.session == nil {
		rings[2] = s.users[userRing{c.UserNS, c.RUID, true}]
	}
	for _, r := range rings {
		if r != nil {
			if k, _ := c.search(r, true, match, state, seen{}, 0); k != nil {
				return k, nil
			}
		}
	}
	return nil, unix.ENOKEY
}

// search looks through ring and the rings in it that may be searched; ENOKEY, or why what matched is no use.
func (c Caller) search(ring *Key, possessed bool, match func(*Key) bool, state bool, been seen, depth int) (*Key, error) {
	err := error(unix.ENOKEY)
	if e := ring.valid(); e != nil && (state || !match(ring)) {
		return nil, e
	}
	if match(ring) {
		return ring, nil
	}
	if ring.typ != keyring || depth > maxDepth || been.visit(ring) || c.may(ring, possessed, Search) != nil {
		return nil, err
	}
	for _, k := range ring.links {
		if !match(k) {
			continue
		}
		e := k.valid()
		if e == nil || !state {
			e = c.may(k, possessed, Search)
		}
		if e == nil {
			return k, nil
		}
		err = e
	}
	for _, k := range ring.links {
		if k.typ == keyring {
			if f, _ := c.search(k, possessed, match, state, been, depth+1); f != nil {
				return f, nil
			}
		}
	}
	return nil, err
}

// named matches a key by type and description.
func named(typ, desc string) func(*Key) bool {
	return func(k *Key) bool { return k.typ == typ && k.desc == desc }
}

// seen are the rings that a walk has been in: there are more ways to them than rings.
type seen map[*Key]bool

// visit reports whether the walk has been in k before.
func (been seen) visit(k *Key) bool {
	old := been[k]
	been[k] = true
	return old
}

// depth is how many rings are in each other below k; known is what it found so far.
func (k *Key) depth(known map[*Key]int) int {
	d, ok := known[k]
	if ok {
		return d
	}
	for _, l := range k.links {
		if l.typ == keyring {
			d = max(d, 1+l.depth(known))
		}
	}
	known[k] = d
	return d
}

func (k *Key) holds(o *Key, been seen) bool {
	return k == o || !been.visit(k) && slices.ContainsFunc(k.links, func(l *Key) bool { return l.typ == keyring && l.holds(o, been) })
}

// link is key_link: ENOTDIR, EDEADLK, ELOOP, EDQUOT. A key of the same name makes room.
// +checklocks:s.mu
func (s *Store) link(ring, k *Key) error {
	if ring.typ != keyring {
		return unix.ENOTDIR
	}
	if k.typ == keyring {
		if k.holds(ring, seen{}) {
			return unix.EDEADLK
		}
		if k.depth(map[*Key]int{}) >= maxDepth-1 {
			return unix.ELOOP
		}
	}
	i := slices.IndexFunc(ring.links, named(k.typ, k.desc))
	if i < 0 {
		if err := s.reserve(ring, ring.charged+linkBytes); err != nil {
			return err
		}
		ring.links = append(ring.links, nil)
		i = len(ring.links) - 1
	}
	old := ring.links[i]
	k.refs++
	ring.links[i] = k
	s.put(old)
	return nil
}

// clear empties a ring.
// +checklocks:s.mu
func (s *Store) clear(ring *Key) {
	l := ring.links
	ring.links = nil
	s.charge(ring.uid, 0, -linkBytes*len(l), true)
	ring.charged -= linkBytes * len(l)
	for _, k := range l {
		s.put(k)
	}
}

// Types.

// checkType is key_type_lookup.
func checkType(typ string) bool { return typ == "user" || typ == "logon" || typ == keyring }

// checkPayload is the type's preparse and vet_description: EINVAL.
func checkPayload(typ, desc string, data []byte) error {
	if typ == keyring {
		if len(data) != 0 {
			return unix.EINVAL
		}
		return nil
	}
	if len(data) == 0 || len(data) > 32767 || typ == "logon" && strings.Index(desc, ":") < 1 {
		return unix.EINVAL
	}
	return nil
}

// Add is add_key(2).
func (s *Store) Add(c Caller, typ, desc string, data []byte, ringID int32) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ring, possessed, err := s.lookup(c, ringID, true, Write)
	switch {
	case err != nil:
		return 0, err
	case !checkType(typ):
		return 0, unix.ENODEV
	case ring.typ != keyring:
		return 0, unix.ENOTDIR
	case desc == "":
		return 0, unix.EINVAL
	}
	if err := checkPayload(typ, desc, data); err != nil {
		return 0, err
	}
	perm := uint32(0x3f010000)
	if typ != keyring {
		if i := slices.IndexFunc(ring.links, named(typ, desc)); i >= 0 && !ring.links[i].revoked {
			k := ring.links[i]
			if err := c.may(k, possessed, Write); err != nil {
				return 0, err
			}
			return k.serial, s.update(k, data)
		}
		if typ == "logon" {
			perm &^= Read << 24
		}
	}
	k, err := s.alloc(c, typ, desc, data, perm, false)
	if err != nil {
		return 0, err
	}
	k.refs = 1
	defer s.put(k)
	return k.serial, s.link(ring, k)
}

// update replaces a payload.
// +checklocks:s.mu
func (s *Store) update(k *Key, data []byte) error {
	if err := s.reserve(k, k.charged-len(k.data)+len(data)); err != nil {
		return err
	}
	k.data, k.expiry = data, time.Time{}
	return nil
}

// found links what a search found to the ring destID, if that is not 0.
// +checklocks:s.mu
func (s *Store) found(c Caller, k *Key, err error, dest *Key) (int32, error) {
	if err != nil {
		return 0, err
	}
	if dest != nil {
		if err := s.link(dest, k); err != nil {
			return 0, err
		}
	}
	return k.serial, nil
}

// dest is the ring that a key which is found is to be linked to, nil for 0.
// +checklocks:s.mu
func (s *Store) dest(c Caller, id int32) (*Key, error) {
	if id == 0 {
		return nil, nil
	}
	k, _, err := s.lookup(c, id, true, Write)
	return k, err
}

// Request is request_key(2).
func (s *Store) Request(c Caller, typ, desc string, destID int32) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dest, err := s.dest(c, destID)
	if err != nil {
		return 0, err
	}
	k, err := s.possessed(c, named(typ, desc), true)
	return s.found(c, k, err, dest)
}

// capable is capable(CAP_SYS_ADMIN).
func (c Caller) capable() bool { return c.HasCapIn(linux.CAP_SYS_ADMIN, c.UserNS.Root()) }
