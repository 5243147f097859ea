package kernel

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
	"moat/sentry/kernel/signal"
)

// User counts what one user ID uses (struct ucounts, for the limits that are by user).
type User struct {
	uid     auth.KUID
	refs    int // guarded by userTable.mu
	procs   atomic.Int64
	pending atomic.Int64
}

// AddPending implements signal.Counter.
func (u *User) AddPending(n int64) int64 { return u.pending.Add(n) }

// Pending is the number of queued signals of the user (SigQ of proc_pid_status(5)).
func (u *User) Pending() int64 { return u.pending.Load() }

type userTable struct {
	mu    sync.Mutex
	users map[auth.KUID]*User // +checklocks:mu
}

func (ut *userTable) get(uid auth.KUID) *User {
	ut.mu.Lock()
	defer ut.mu.Unlock()
	u := ut.users[uid]
	if u == nil {
		u = &User{uid: uid}
		ut.users[uid] = u
	}
	u.refs++
	return u
}

func (ut *userTable) put(u *User) {
	ut.mu.Lock()
	defer ut.mu.Unlock()
	if u.refs--; u.refs == 0 {
		delete(ut.users, u.uid)
	}
}

// User is the counters of t's real user.
func (t *Task) User() *User { return t.user.Load() }

func (t *Task) userCounter() signal.Counter { return t.user.Load() }

// nprocExceeded is is_rlimit_overlimit for RLIMIT_NPROC; root and holders of CAP_SYS_RESOURCE or CAP_SYS_ADMIN may pass it.
func (t *Task) nprocExceeded(u *User) bool {
	if uint64(u.procs.Load()) < t.tg.Limit(linux.RLIMIT_NPROC).Cur || u.uid == 0 {
		return false
	}
	c := t.Credentials()
	return !c.HasCapIn(linux.CAP_SYS_RESOURCE, t.k.rootUserNS) && !c.HasCapIn(linux.CAP_SYS_ADMIN, t.k.rootUserNS)
}
