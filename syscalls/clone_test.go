package syscalls

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// FuzzCloneArgs checks clone3's decoder against any bytes: it must not panic, and what it accepts must be sane.
func FuzzCloneArgs(f *testing.F) {
	ok := make([]byte, 88)
	binary.LittleEndian.PutUint64(ok[32:], uint64(linux.SIGCHLD))
	f.Add(ok)
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < cloneArgsMin || len(b) > 4096 {
			return
		}
		a, _, n, err := decodeCloneArgs(b)
		if err != nil {
			if _, ok := err.(unix.Errno); !ok {
				t.Fatal(err)
			}
			return
		}
		if a.Flags&linux.CSIGNAL&^0x80 != 0 || a.ExitSignal > linux.SignalMaximum || a.Stack > userTop || n > maxSetTID {
			t.Fatalf("accepted %+v", a)
		}
	})
}

func TestCloneArgs(t *testing.T) {
	le := binary.LittleEndian
	for _, tc := range []struct {
		name string
		len  int
		set  map[int]uint64
		want error
	}{
		{"plain", 64, map[int]uint64{4: 17}, nil},
		{"longer, zero", 100, nil, nil},
		{"longer, not zero", 96, map[int]uint64{11: 1}, unix.E2BIG},
		{"CLONE_DETACHED", 64, map[int]uint64{0: linux.CLONE_DETACHED}, unix.EINVAL},
		{"signal in flags", 64, map[int]uint64{0: 17}, unix.EINVAL},
		{"signal with CLONE_THREAD", 64, map[int]uint64{0: linux.CLONE_THREAD, 4: 17}, unix.EINVAL},
		{"signal 65", 64, map[int]uint64{4: 65}, unix.EINVAL},
		{"stack without size", 64, map[int]uint64{5: 4096}, unix.EINVAL},
		{"cgroup", 88, map[int]uint64{0: linux.CLONE_INTO_CGROUP, 10: 3}, nil},
		{"cgroup beyond int", 88, map[int]uint64{0: linux.CLONE_INTO_CGROUP, 10: 1 << 31}, unix.EINVAL},
		{"cgroup without its member", 80, map[int]uint64{0: linux.CLONE_INTO_CGROUP}, unix.EINVAL},
		{"set_tid without size", 88, map[int]uint64{8: 4096}, unix.EINVAL},
	} {
		b := make([]byte, tc.len)
		for i, v := range tc.set {
			le.PutUint64(b[8*i:], v)
		}
		if _, _, _, err := decodeCloneArgs(b); err != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}
