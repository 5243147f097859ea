package workloads

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOrdinaryUser: a user without any rights on the host has a sandbox of the host's files, in which it is root.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	const nobody = 65534
	platforms(t, func(t *testing.T, p string) {
		dir, err := os.MkdirTemp("", "moat-user-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		os.Chown(dir, nobody, nobody)
		run := func(args ...string) result {
			t.Helper()
			c := exec.Command(moat, append([]string{"do", "--platform=" + p}, args...)...)
			c.Env, c.Dir = environ(), dir
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			var out, errs bytes.Buffer
			c.Stdout, c.Stderr = &out, &errs
			start := time.Now()
			timer := time.AfterFunc(2*time.Minute, func() { c.Process.Kill() })
			defer timer.Stop()
			c.Run()
			return result{out: out.String(), err: errs.String(), code: c.ProcessState.ExitCode(), took: time.Since(start)}
		}
		r := run("--", "sh", "-c", `id -u; id -g; grep -c . /proc/self/uid_map; echo x > /new && cat /new; (cat /etc/shadow) 2>/dev/null || echo unreadable; sleep 0 & wait; echo waited; stat -c %u .`)
		if r.code != 0 || r.out != "0\n0\n1\nx\nunreadable\nwaited\n0\n" {
			t.Errorf("%v", r)
		}
		// What is written to a volume is the user's own on the host; others' files stay out of reach.
		r = run("--volume="+dir+":/v", "--", "sh", "-c", "echo mine > /v/f; chmod 640 /v/f; mkdir /v/d; ln -s f /v/l; cat /v/l; touch /v/g; chown 0:0 /v/g && echo owned; chown 5:5 /v/g 2>/dev/null || echo not to others")
		if r.code != 0 || r.out != "mine\nowned\nnot to others\n" {
			t.Errorf("%v", r)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(dir+"/f", &st); err != nil || st.Uid != nobody || st.Gid != nobody || st.Mode&0o777 != 0o640 {
			t.Errorf("the file on the host: %+v (%v)", st, err)
		}
		if r = run("--", "sh", "-c", "kill -TERM $$"); r.code != 143 {
			t.Errorf("%v", r)
		}
		if r = run("--volume=/root:/v", "--", "ls", "/v"); r.code == 0 && strings.TrimSpace(r.out) != "" {
			t.Errorf("root's directory can be read: %v", r)
		}
		if r = run("--", "no-such-command"); r.code != 127 {
			t.Errorf("%v", r)
		}
	})
}
