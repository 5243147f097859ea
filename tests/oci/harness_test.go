// Package oci tests moat as an OCI runtime: its verbs by themselves, and with MOAT_DOCKER=1 (make oci) a Docker that it starts by hand. MOAT_PLATFORMS, which names one
// here, takes another platform than the default.
package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"moat/cmd/moat/container"
)

// moat is the binary, or the script that adds the platform's flag for all who run it; rootfs is a tree with busybox.
var moat, rootfs string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "moat-oci-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		moat = filepath.Join(dir, "moat")
		bin := moat
		if p := os.Getenv("MOAT_PLATFORMS"); p != "" {
			bin += ".bin"
			err = os.WriteFile(moat, fmt.Appendf(nil, "#!/bin/sh\nexec %s --platform=%s \"$@\"\n", bin, p), 0o755)
		}
		c := exec.Command("go", "build", "-trimpath", "-o", bin, "moat/cmd/moat")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, e := c.CombinedOutput(); e != nil {
			err = fmt.Errorf("%w: %s", e, out)
		}
	}
	if err == nil {
		rootfs = filepath.Join(dir, "rootfs")
		err = makeRootfs(rootfs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// busybox is Debian's busybox-static.
const busybox = "/bin/busybox"

func makeRootfs(dir string) error {
	for _, d := range []string{"bin", "etc", "proc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		return nil // need skips
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nann:x:7:8::/home/ann:/bin/sh\n"), 0o644); err != nil {
		return err
	}
	for _, a := range []string{"sh", "ls", "cat", "sleep", "echo", "id", "ps", "mount", "true", "kill", "tty", "stty", "hostname", "grep", "env", "pwd", "mkdir", "chmod", "date", "readlink", "wc"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755)
}

// runtime is a state directory with a bundle.
type runtime struct {
	t            *testing.T
	root, bundle string
	spec         *specs.Spec
}

// newRuntime makes one, and looks afterwards whether anything is left behind.
func newRuntime(t *testing.T, args ...string) *runtime {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := exec.Command(busybox, "true").Run(); err != nil {
		t.Skip("busybox-static is not installed (make deps)")
	}
	r := &runtime{t: t, root: t.TempDir(), bundle: t.TempDir(), spec: container.ExampleSpec(false)}
	r.spec.Process.Args, r.spec.Process.Terminal = args, false
	r.spec.Root = &specs.Root{Path: rootfs, Readonly: true}
	r.spec.Linux.CgroupsPath = "/moat-test-" + filepath.Base(filepath.Dir(r.root))
	t.Cleanup(func() {
		ds, _ := os.ReadDir(r.root)
		for _, d := range ds {
			r.moat("delete", "--force", d.Name())
		}
		if ds, _ := os.ReadDir(r.root); len(ds) > 0 {
			t.Errorf("left in the state directory: %v", ds)
		}
		if r.spec.Linux.CgroupsPath == "" {
			return
		}
		if left, _ := filepath.Glob("/sys/fs/cgroup/*" + r.spec.Linux.CgroupsPath); len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
	})
	return r
}

// write writes the bundle's config.json.
func (r *runtime) write() {
	r.t.Helper()
	b, err := json.Marshal(r.spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.bundle, "config.json"), b, 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// result is how a command ended.
type result struct {
	out, err string
	code     int
}

func (r result) String() string {
	return fmt.Sprintf("code %d\nstdout: %s\nstderr: %s", r.code, r.out, r.err)
}

const limit = 2 * time.Minute

// moat runs a verb. Its output goes to files: what lives on keeps them open.
func (r *runtime) moat(args ...string) result {
	r.t.Helper()
	return run(r.t, nil, append([]string{moat, "--root", r.root}, args...)...)
}

func run(t *testing.T, env []string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(t.TempDir(), "out")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	c.Stdout, c.Stderr = files[0], files[1]
	err := c.Run()
	res := result{}
	for i, s := range []*string{&res.out, &res.err} {
		b, _ := os.ReadFile(files[i].Name())
		*s = string(b)
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("%s: not done after %v\n%v", strings.Join(argv, " "), limit, res)
	case errors.As(err, &exit):
		res.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%s: %v", argv[0], err)
	}
	return res
}

// ok runs a verb that must succeed and returns its output.
func (r *runtime) ok(args ...string) string {
	r.t.Helper()
	res := r.moat(args...)
	if res.code != 0 || res.err != "" {
		r.t.Fatalf("moat %s: %v", strings.Join(args, " "), res)
	}
	return res.out
}

// interrupt kills n of the verbs, chosen at random, each at a random moment of its first most milliseconds, and says which and when.
func (r *runtime) interrupt(rnd *rand.Rand, n, most int, verbs [][]string) (told []string) {
	r.t.Helper()
	for range n {
		v := verbs[rnd.IntN(len(verbs))]
		c := exec.Command(moat, append([]string{"--root", r.root}, v...)...)
		if err := c.Start(); err != nil {
			r.t.Fatal(err)
		}
		d := time.Duration(rnd.IntN(most)) * time.Millisecond
		time.Sleep(d)
		c.Process.Kill()
		c.Wait()
		told = append(told, fmt.Sprintf("%s %v", v[0], d))
	}
	return told
}

// fails runs a verb that must fail with the code and one line that has the words.
func (r *runtime) fails(code int, words string, args ...string) {
	r.t.Helper()
	res := r.moat(args...)
	if res.code != code || !strings.Contains(res.err, words) || strings.Count(res.err, "\n") != 1 {
		r.t.Errorf("moat %s: want code %d and one line with %q: %v", strings.Join(args, " "), code, words, res)
	}
}

// run runs the bundle and wants an output and an exit code.
func (r *runtime) run(want string, code int) {
	r.t.Helper()
	r.write()
	if res := r.moat("run", "-b", r.bundle, "c"); res.out != want || res.code != code || res.err != "" {
		r.t.Errorf("want code %d and %q: %v", code, want, res)
	}
}

// sh sets the script that the bundle runs.
func (r *runtime) sh(script string) { r.spec.Process.Args = []string{"sh", "-c", script} }

// state is the state of container id.
func (r *runtime) state(id string) (s container.OCIState) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.ok("state", id)), &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// await waits for a status.
func (r *runtime) await(id string, status specs.ContainerState) container.OCIState {
	r.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s := r.state(id); s.Status == status {
			return s
		}
	}
	r.t.Fatalf("%s does not become %s", id, status)
	return container.OCIState{}
}

// trapped waits until a process that the container sees catches SIGTERM: an init that does not ignores it, and others die of it.
func (r *runtime) trapped(id string) {
	r.t.Helper()
	eventually(r.t, "a trap", func() bool {
		return r.moat("exec", id, "sh", "-c", "grep -q 'SigCgt:.*[4567c-f]...$' /proc/[0-9]*/status").code == 0
	})
}

// eventually calls f until it is content.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not happen", what)
		}
	}
}

// processesOf is how many processes of the host have dir in their command line, but for the grep that looks.
func processesOf(dir string) int {
	out, _ := exec.Command("sh", "-c", "grep -l -a -- "+dir+" /proc/[0-9]*/cmdline 2>/dev/null").Output()
	return len(strings.Fields(string(out))) - 1
}

func lines(s string) int { return bytes.Count([]byte(s), []byte("\n")) }
