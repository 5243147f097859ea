package workloads

import (
	"path/filepath"
	"testing"
	"time"
)

// TestIdle: a sandbox whose program waits costs no CPU but what the program's own timers ask for: under 0.5 % of a CPU over a minute. What is
// counted is the time of the sentry, the gofer and the stubs.
func TestIdle(t *testing.T) {
	long(t)
	src, err := filepath.Abs("testdata/Idle.java")
	if err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{
		"sleep":        `echo up; exec sleep 600`,
		"python3":      `exec python3 -c 'import threading, time; threading.Thread(target=threading.Event().wait, daemon=True).start(); print("up", flush=True); time.sleep(600)'`,
		"node":         `exec node -e 'setTimeout(() => {}, 600000); console.log("up")'`,
		"java":         `cd $(mktemp -d) && javac -d . ` + src + ` && exec java -cp . Idle`,
		"redis-server": `(sleep 3; echo up) & exec redis-server --port 0 --unixsocket /tmp/redis.sock --save '' --dir /tmp > /dev/null`,
	}
	platforms(t, func(t *testing.T, p string) {
		before := map[string]footprint{}
		shells := map[string]*shell{}
		for name, text := range programs {
			if command(t, time.Minute, "", "", "bash", "-c", "command -v "+name).code != 0 {
				t.Logf("%s is not installed (make deps)", name)
				continue
			}
			s := newShell(t, p)
			s.send(text)
			s.expect(time.Minute, "up")
			shells[name] = s
		}
		time.Sleep(5 * time.Second) // compilers and collectors come to rest
		for name, s := range shells {
			before[name] = measure(s.cmd.Process.Pid)
		}
		start := time.Now()
		time.Sleep(time.Minute)
		for name, s := range shells {
			after, took := measure(s.cmd.Process.Pid), time.Since(start)
			if after.processes < before[name].processes || after.processes < 2 {
				t.Errorf("%s: it has ended", name)
			}
			share := float64(after.cpu-before[name].cpu) / float64(took) * 100
			t.Logf("%s: %.2f %% of a CPU; %v", name, share, after)
			if share >= 0.5 {
				t.Errorf("%s: an idle sandbox takes %.2f %% of a CPU", name, share)
			}
		}
	})
}
