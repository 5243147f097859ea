package workloads

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// oneLine wants a failure with the exit code and one clear line that has the words.
func oneLine(t *testing.T, r result, code int, words ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.err), "\n")
	if r.code != code || len(lines) != 1 || !strings.HasPrefix(lines[0], "moat: ") {
		t.Errorf("want code %d and one line\n%v", code, r)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("the message lacks %q: %s", w, r.err)
		}
	}
}

func TestBadBundle(t *testing.T) {
	const start = `{"ociVersion":"1.0.2","process":{"args":["/bin/true"],"cwd":"/","user":{"uid":0,"gid":0}},"root":{"path":"`
	for _, c := range []struct {
		name, config string
		words        []string
	}{
		{"missing", "", []string{"there is no", "config.json"}},
		{"bad JSON", "{\n\"ociVersion\": \"1.0.2\",\n oops", []string{"config.json", "line 3", "not valid JSON"}},
		{"truncated", start, []string{"config.json", "not valid JSON"}},
		{"wrong type", `{"ociVersion":"1.0.2","process":{"args":"sh","cwd":"/"},"root":{"path":"r"}}`, []string{"process.args", "string"}},
		{"wrong type deep", "{\"ociVersion\":\"1.0.2\",\n\"process\":{\"args\":[\"sh\"],\"cwd\":\"/\",\"user\":{\"uid\":\"me\"}}}", []string{"line 2", "process.user.uid"}},
		{"no version", `{}`, []string{"ociVersion"}},
		{"no process", `{"ociVersion":"1.0.2"}`, []string{"process: missing"}},
		{"no args", `{"ociVersion":"1.0.2","process":{"cwd":"/"}}`, []string{"process.args"}},
		{"relative cwd", `{"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"x"}}`, []string{"process.cwd"}},
		{"no root", `{"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/"}}`, []string{"root.path"}},
		{"missing rootfs", start + `nowhere"}}`, []string{"root.path", "nowhere", "no such file"}},
		{"rootfs is a file", start + `config.json"}}`, []string{"root.path", "not a directory"}},
		{"bad environment", `{"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/","env":["X"]},"root":{"path":"/"}}`, []string{"process.env[0]"}},
		{"missing bind", start + `/"},"mounts":[{"destination":"/mnt","source":"/nonexistent","options":["bind"]}]}`, []string{"mounts[0].source", "/nonexistent"}},
		{"bad destination", start + `/"},"mounts":[{"destination":"","type":"tmpfs"}]}`, []string{"mounts[0].destination"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.config != "" {
				os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o644)
			}
			oneLine(t, command(t, time.Minute, "", "", moat, "run", "-b", dir, "x"), 1, c.words...)
		})
	}
	oneLine(t, command(t, time.Minute, "", "", moat, "run", "-b", "/nonexistent", "x"), 1, "/nonexistent", "no such file")
	oneLine(t, command(t, time.Minute, "", "", moat, "run", "-b", "/", "../x"), 1, "ID")
}

// TestBadRootfs: what config.json says can also be wrong inside the sandbox.
func TestBadInside(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		run := func(config string) result {
			dir := t.TempDir()
			os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644)
			return command(t, time.Minute, "", "", moat, "run", "--platform="+p, "-b", dir, "x")
		}
		// The specification wants a warning of capabilities that there are not.
		r := run(`{"ociVersion":"1.0.2","process":{"args":["true"],"cwd":"/","env":["PATH=/bin:/usr/bin"],"capabilities":{"bounding":["CAP_FLY"]}},"root":{"path":"/","readonly":true}}`)
		oneLine(t, r, 0, "process.capabilities", "CAP_FLY")
		oneLine(t, run(`{"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/","rlimits":[{"type":"RLIMIT_FUN"}]},"root":{"path":"/","readonly":true}}`), 1, "process.rlimits", "RLIMIT_FUN")
		oneLine(t, run(`{"ociVersion":"1.0.2","process":{"args":["a"],"cwd":"/"},"root":{"path":"/","readonly":true},"mounts":[{"destination":"/mnt","type":"nofs"}]}`), 1, "nofs", "/mnt")
		oneLine(t, run(`{"ociVersion":"1.0.2","process":{"args":["/nonexistent"],"cwd":"/"},"root":{"path":"/","readonly":true}}`), 1, "/nonexistent")
	})
}

// elf is an x86-64 executable header with one segment.
func elf(change func(b []byte)) []byte {
	b := make([]byte, 4096)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 62)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], 0x400080)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], 1)
	le.PutUint32(b[68:], 5)
	le.PutUint64(b[80:], 0x400000)
	le.PutUint64(b[96:], 4096)
	le.PutUint64(b[104:], 4096)
	le.PutUint64(b[112:], 4096)
	change(b)
	return b
}

func TestBadPrograms(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	le := binary.LittleEndian
	write := func(name string, b []byte, mode os.FileMode) string {
		f := filepath.Join(dir, name)
		os.WriteFile(f, b, mode)
		return f
	}
	sh, err := os.ReadFile("/bin/dash")
	if err != nil {
		t.Skip("no /bin/dash")
	}
	platforms(t, func(t *testing.T, p string) {
		s := sandbox{platform: p}
		oneLine(t, s.run(t, "no-such-command"), 127, "no-such-command", "not found")
		oneLine(t, s.run(t, "/nonexistent/x"), 127, "/nonexistent/x")
		oneLine(t, s.run(t, write("plain", []byte("text"), 0o644)), 126, "plain", "permission denied")
		oneLine(t, s.run(t, dir), 126, dir)
		oneLine(t, s.run(t, write("text", []byte("just text"), 0o755)), 126, "exec format error")
		oneLine(t, s.run(t, write("head", sh[:50], 0o755)), 126, "exec format error")
		oneLine(t, s.run(t, write("empty", nil, 0o755)), 126, "exec format error")
		oneLine(t, s.run(t, write("noint", []byte("#!/nonexistent/sh\n"), 0o755)), 127)
		for name, f := range map[string]func(b []byte){
			"phnum":   func(b []byte) { le.PutUint16(b[56:], 0xffff) },
			"phoff":   func(b []byte) { le.PutUint64(b[32:], 1<<63) },
			"machine": func(b []byte) { le.PutUint16(b[18:], 183) },
			"interp":  func(b []byte) { le.PutUint32(b[64:], 3); le.PutUint64(b[96:], 1<<40) },
			"phent":   func(b []byte) { le.PutUint16(b[54:], 1) },
		} {
			if r := s.run(t, write("elf-"+name, elf(f), 0o755)); r.code != 126 && r.code != 125 {
				t.Errorf("%s: %v", name, r)
			} else {
				oneLine(t, r, r.code)
			}
		}
		// These are found out after the point of no return on Linux, too: the process dies, the sandbox does not.
		for name, f := range map[string]func(b []byte){
			"vaddr": func(b []byte) { le.PutUint64(b[80:], 1<<63) },
			"memsz": func(b []byte) { le.PutUint64(b[104:], 1<<62) },
			"entry": func(b []byte) { le.PutUint64(b[24:], 0x10) },
			"none":  func(b []byte) { le.PutUint16(b[56:], 0) },
		} {
			f := write("elf-"+name, elf(f), 0o755)
			if r := s.run(t, "bash", "-c", f+" 2>/dev/null; echo code $?"); r.code != 0 || !strings.HasPrefix(r.out, "code 1") {
				t.Errorf("%s: %v", name, r)
			}
		}
	})
}

func TestExitCodes(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		s := sandbox{platform: p}
		for text, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -TERM $$": 143, "kill -KILL $$": 137, "kill -SEGV $$": 139, "ulimit -c 0; kill -ABRT $$": 134} {
			if r := s.run(t, "sh", "-c", text); r.code != want || r.err != "" {
				t.Errorf("%s: want %d: %v", text, want, r)
			}
		}
	})
}

// TestFlags are mistakes in flags.
func TestFlags(t *testing.T) {
	for _, c := range [][]string{
		{"do"}, {"do", "--platform=none", "--", "true"}, {"do", "--rootfs=/nonexistent", "--", "true"}, {"do", "--rootfs=/etc/passwd", "--", "true"},
		{"do", "--volume=x", "--", "true"}, {"do", "--volume=/nonexistent:/x", "--", "true"}, {"do", "--volume=/:/x:wx", "--", "true"},
		{"do", "--memory=lots", "--", "true"}, {"do", "--memory=1", "--", "true"}, {"do", "--network=elsewhere", "--", "true"}, {"do", "--env==x", "--", "true"},
		{"do", "--nonsense", "--", "true"}, {"fly"}, {"boot"}, {"gofer"}, {"run"}, {"kill"}, {"--log-format=xml", "list"},
	} {
		code := 125
		if c[0] == "run" || c[0] == "kill" || c[len(c)-1] == "list" {
			code = 1
		}
		oneLine(t, command(t, time.Minute, "", "", append([]string{moat}, c...)...), code)
	}
}

// TestFullDisk: what Linux says of a full disk, and no more is written than fits.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	const text = `dd if=/dev/zero of=f bs=64k count=100 2>&1 | grep -o 'No space left on device'; stat -c '%s %b' f; echo more > g || echo refused; stat -c %s g
perl -e 'open F, "+<", "f"; seek F, 0, 2; print syswrite(F, "x" x 10) // "errno " . ($!+0), "\n"'
cp /bin/true h 2>/dev/null; echo $?; ln -s f l 2>/dev/null; rm -f f g h l; echo again > g; cat g; rm g`
	want := command(t, time.Minute, dir, "", "sh", "-c", text)
	platforms(t, func(t *testing.T, p string) {
		got := sandbox{platform: p, flags: []string{"--volume=" + dir + ":/mnt", "--workdir=/mnt"}}.run(t, "sh", "-c", text)
		if got.out != want.out || got.code != want.code {
			t.Errorf("differs from the host\n--- sandbox: %v\n--- host: %v", got, want)
		}
	})
}

// TestVanishingRoot: a root that is deleted under the container has no files any more; the container finds that out as any process would.
func TestVanishingRoot(t *testing.T) {
	need(t, "gcc")
	const prog = `#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void)
{
	puts("up");
	fflush(stdout);
	getchar();
	int fd = open("/data/file", O_RDONLY);
	printf("%s\n", fd < 0 ? strerror(errno) : "opened");
	execl("/data/other", "other", NULL);
	printf("%s\n", strerror(errno));
	fd = open("/new", O_CREAT | O_WRONLY, 0644);
	printf("%d\n", fd >= 0); // in the layer of memory
	return 3;
}`
	src := filepath.Join(t.TempDir(), "p.c")
	os.WriteFile(src, []byte(prog), 0o644)
	platforms(t, func(t *testing.T, p string) {
		root := filepath.Join(t.TempDir(), "root")
		if err := os.MkdirAll(root+"/data", 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(root+"/data/file", []byte("x"), 0o644)
		if r := command(t, time.Minute, "", "", "gcc", "-static", "-w", "-o", root+"/prog", src); r.code != 0 {
			t.Fatal(r)
		}
		c := exec.Command(moat, "do", "--platform="+p, "--rootfs="+root, "--", "/prog")
		c.Env = environ()
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var errs strings.Builder
		c.Stderr = &errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		if l, err := r.ReadString('\n'); l != "up\n" {
			t.Fatalf("%q %v %s", l, err, errs.String())
		}
		os.RemoveAll(root)
		in.Write([]byte("\n"))
		text, _ := io.ReadAll(r)
		c.Wait()
		if code := c.ProcessState.ExitCode(); code != 3 || string(text) != "No such file or directory\nNo such file or directory\n1\n" {
			t.Errorf("code %d, output %q: %s", code, text, errs.String())
		}
	})
}
