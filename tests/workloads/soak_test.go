package workloads

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// classes are those of stress-ng whose stressors the soak runs.
const classes = "cpu memory vm scheduler pipe filesystem signal"

// stressors are what stress-ng has in classes, without those that testdata/stressors.absent gives a reason to leave out.
func stressors(t *testing.T) (names []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/stressors.absent")
	if err != nil {
		t.Fatal(err)
	}
	absent := map[string]bool{}
	for l := range strings.Lines(string(b)) {
		if name, reason, ok := strings.Cut(l, ": "); ok && !strings.HasPrefix(l, "#") && reason != "" {
			absent[name] = true
		}
	}
	help := command(t, time.Minute, "", "", "stress-ng", "--help").out
	for _, c := range strings.Fields(classes) {
		r := command(t, time.Minute, "", "", "stress-ng", "--class", c+"?")
		if c == "signal" && strings.Contains(r.out+r.err, "Unknown class") { // before stress-ng 0.18
			r = command(t, time.Minute, "", "", "stress-ng", "--class", "interrupt?")
		}
		_, list, ok := strings.Cut(r.out+r.err, "stressors: ")
		if !ok {
			t.Fatalf("stress-ng does not list class %s: %v", c, r)
		}
		for _, s := range strings.Fields(list) {
			// The names of classes stand among those of stressors.
			if !absent[s] && !slices.Contains(names, s) && regexp.MustCompile(`(?m)--`+regexp.QuoteMeta(s)+` N\b`).MatchString(help) {
				names = append(names, s)
			}
		}
	}
	return names
}

// watch says so on stderr and stops the sandbox of pid when for two minutes none of its threads has run, waited for a CPU, or come or gone: a stressor that hangs is
// told from one that a loaded machine keeps waiting. It ends when stop is closed.
func watch(pid int, stressor string) (stop chan bool) {
	stop = make(chan bool)
	go func() {
		last, idle := activity(pid), 0
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Second):
			}
			now := activity(pid)
			if idle++; now != last {
				last, idle = now, 0
			}
			if idle == 12 {
				fmt.Fprintf(os.Stderr, "%s: nothing has run in the sandbox for two minutes\n", stressor)
				syscall.Kill(pid, syscall.SIGKILL)
				return
			}
		}
	}()
	return stop
}

// activity is how many threads the processes below pid have, and how many tenths of a second they ran or waited for a CPU.
func activity(pid int) (a struct {
	threads int
	tenths  uint64
}) {
	for _, p := range children(pid) {
		all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p))
		for _, f := range all {
			var ran, waited uint64 // nanoseconds: Documentation/scheduler/sched-stats.rst
			b, _ := os.ReadFile(f)
			fmt.Sscan(string(b), &ran, &waited)
			a.threads++
			a.tenths += (ran + waited) / 1e8
		}
	}
	return a
}

// TestSoak runs stress-ng in one sandbox for MOAT_SOAK minutes (make soak), stressor after stressor, MOAT_SOAK_SECONDS each, round after round, and
// wants each to verify what it did and the sandbox to hold no more of the host at the end. MOAT_STRESSORS names some stressors.
func TestSoak(t *testing.T) {
	minutes, err := strconv.ParseFloat(os.Getenv("MOAT_SOAK"), 64)
	if err != nil {
		t.Skip("an hour long: make soak")
	}
	need(t, "stress-ng", "setpriv")
	seconds, _ := strconv.Atoi(os.Getenv("MOAT_SOAK_SECONDS"))
	seconds = max(seconds, 1)
	names := strings.Fields(os.Getenv("MOAT_STRESSORS"))
	if len(names) == 0 {
		names = stressors(t)
	}
	platforms(t, func(t *testing.T, p string) {
		s := newShell(t, p, "--memory=2g")
		s.do(time.Minute, `mkdir /tmp/soak; cd /tmp/soak; chmod 777 .; ulimit -c 0
stress() { local as=; case $1 in exec|spawn|resources|procfs) as="setpriv --reuid=65534 --regid=65534 --clear-groups";; esac # two refuse root, one kills by uninitialised numbers, one reads from /proc/PID/fd
timeout -k 5 1200 $as stress-ng --$1 2 --verify -t $2 2>&1 </dev/null | grep -v dispatching | tail -n 20; return ${PIPESTATUS[0]}; }`)
		end := time.Now().Add(time.Duration(minutes * float64(time.Minute)))
		var first, peak footprint
		n := 0
		for round := 1; n == 0 || time.Now().Before(end); round++ {
			for _, name := range names {
				if n > 0 && time.Now().After(end) {
					break
				}
				start := time.Now()
				stop := watch(s.cmd.Process.Pid, name)
				out, code := s.do(21*time.Minute, fmt.Sprintf("stress %s %d", name, seconds))
				close(stop)
				if code != "0" {
					t.Errorf("%s: exit code %s\n%s", name, code, out)
				}
				n++
				f := measure(s.cmd.Process.Pid)
				t.Logf("round %d: %s: %.1fs; %v", round, name, time.Since(start).Seconds(), f)
				peak.anon, peak.file = max(peak.anon, f.anon), max(peak.file, f.file)
				if round == 1 && n == max(1, len(names)/2) {
					first = atRest(s.cmd.Process.Pid) // in case that there is no second round
				}
			}
			if round == 1 && time.Now().Before(end) {
				first = atRest(s.cmd.Process.Pid)
			}
		}
		s.do(time.Minute, "rm -rf /tmp/soak")
		grown(t, fmt.Sprintf("after %d stressors the sandbox (at most %d and %d MiB)", n, peak.anon>>20, peak.file>>20), 2000, first, atRest(s.cmd.Process.Pid))
	})
}
