package oci

import (
	"encoding/json"
	"os/exec"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestOOMEvents: `events` prints a line when a process is killed for want of memory, at once, and ends with the container, whose end may be the last such kill.
func TestOOMEvents(t *testing.T) {
	r := newRuntime(t)
	r.sh("exec 2>/dev/null; trap 'n=x$n' USR1; trap : TERM; until [ $n ]; do sleep .02; done; (x=a; while :; do x=$x$x$x$x; done); until [ $n = xx ]; do sleep .02; done; x=a; while :; do x=$x$x$x$x; done")
	r.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}}
	r.write()
	r.ok("run", "--detach", "--bundle", r.bundle, "a")
	r.trapped("a")
	c := exec.Command(moat, "--root", r.root, "events", "--interval", "1h", "a")
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(limit, func() { c.Process.Kill() }).Stop()
	in := json.NewDecoder(out)
	for i, want := range []string{"stats", "oom", "oom"} {
		var e struct{ Type, ID string }
		if err := in.Decode(&e); err != nil || e.Type != want || e.ID != "a" {
			t.Fatalf("event %d: %+v, %v; want %s of a", i, e, err, want)
		}
		if i < 2 {
			r.ok("kill", "a", "USR1")
		}
	}
	if in.More() {
		t.Error("an event after the last")
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}
