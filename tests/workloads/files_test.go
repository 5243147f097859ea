package workloads

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// requests runs a script in a sandbox and returns its output and how many requests the gofer got.
func requests(t *testing.T, platform, script string, flags ...string) (string, int) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	r := sandbox{platform: platform, dir: "/", limit: 5 * time.Minute, flags: append(flags, "--debug", "--debug-log="+log)}.run(t, "bash", "-c", script)
	if r.code != 0 {
		t.Fatal(r)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`requests=(\d+)`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no count of requests in the log: %s", clip(string(b)))
	}
	n, _ := strconv.Atoi(string(m[1]))
	return r.out, n
}

// TestCachedRequests: what is known of the sandbox's own mounts takes no request.
func TestCachedRequests(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		script := `perl -e 'for (1..%d) { for my $f ("/usr/bin/env", "/etc/passwd") { open my $h, "<", $f or die; read $h, my $b, 10; close $h; stat $f or die; } stat "/usr/none" and die; opendir my $d, "/usr" or die; readdir $d; closedir $d }'`
		_, few := requests(t, p, fmt.Sprintf(script, 3))
		_, many := requests(t, p, fmt.Sprintf(script, 1000))
		if many > few+100 {
			t.Errorf("6 opens, stats and so on: %d requests; 2000: %d", few, many)
		}
	})
}

// TestWalkRequests: a walk of a tree on the host is right, in any order and with or without attributes, and takes few requests.
func TestWalkRequests(t *testing.T) {
	root := t.TempDir()
	const dirs, files = 400, 8
	for d := range dirs {
		dir := filepath.Join(root, fmt.Sprintf("d%d/e%d/f%d", d%7, d%50, d))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d", f)), make([]byte, d+f), 0o600+os.FileMode(f)); err != nil {
				t.Fatal(err)
			}
		}
		os.Symlink(fmt.Sprintf("file%d", d%9), filepath.Join(dir, "link"))
	}
	platforms(t, func(t *testing.T, p string) {
		for i, script := range []string{
			"find . | sort", "ls -AlnR --time-style=full-iso .", `find . -printf '%p %y %m %s %n %T@ %l %i\n'`, "find . -type f -exec cat {} + | md5sum; find . -name 'file[0-3]' | sort",
			"tar cf - --sort=name . | md5sum", "cp -a . /tmp/copy && diff -r . /tmp/copy && find /tmp/copy -type f | wc -l; rm -rf /tmp/copy; test ! -e /tmp/copy",
		} {
			script = "cd " + root + " && " + script
			want := command(t, time.Minute, "/", "", "bash", "-c", script)
			_, before := requests(t, p, "cd "+root)
			got, n := requests(t, p, script)
			if got != want.out {
				t.Error(script, differ(result{out: got}, want))
			}
			// Listings alone; files that are opened in an order of their own take a request each.
			if n -= before; i < 3 && n > dirs {
				t.Errorf("%s: %d requests for %d directories with %d files", script, n, dirs, dirs*files)
			}
			t.Logf("%d requests: %s", n, script)
		}
	})
}

// TestRenameWhileListing: files that nobody touches are listed once, whatever happens to others, and telldir finds its place again.
func TestRenameWhileListing(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		const script = `
my $dir = shift; mkdir $dir or die; chdir $dir or die;
for my $i (1..3000) { open my $f, ">", "f$i" or die }
opendir my $d, "." or die; my (%seen, $n, @places);
while (defined(my $e = readdir $d)) {
	$seen{$e}++ and die "$e twice";
	if (++$n % 50 == 0) { my $k = $n / 50; my $from = 2 * $k; rename "f$from", "g$from" or die; unlink "f" . ($from + 1000) or die if $from < 1000; }
}
for my $i (1..3000) { die "f$i is missing" if $i % 2 && !$seen{"f$i"} }
rewinddir $d; my @names;
while (1) { my $at = telldir $d; my $e = readdir $d; last unless defined $e; push @names, $e; push @places, $at }
for my $i (5, 2000, 17, $#names) { seekdir $d, $places[$i]; my $e = readdir $d; $e eq $names[$i] or die "$e, not $names[$i]" }
closedir $d; print "ok ", scalar(grep { -e } @names), "\n"; unlink @names; chdir "/"; rmdir $dir or die "rmdir: $!";`
		host := t.TempDir()
		for _, dir := range []string{"/tmp/list", "/dev/shm/list", "/mnt/list"} {
			r := sandbox{platform: p, dir: "/", limit: 5 * time.Minute, flags: []string{"--volume=" + host + ":/mnt"}}.run(t, "perl", "-e", script, dir)
			if r.code != 0 || !strings.HasPrefix(r.out, "ok ") {
				t.Errorf("%s: %v", dir, r)
			}
		}
	})
}

// TestManyDescriptors is a process with 100,000 descriptors, of which all work.
func TestManyDescriptors(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		r := sandbox{platform: p, dir: "/", limit: 5 * time.Minute}.run(t, "python3", "-c", `
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100100, 100100))
fds = [os.open(("/dev/null", "/usr/bin/env")[i % 2], os.O_RDONLY) for i in range(100000)]
assert fds == list(range(3, 100003)), fds[:5]
assert os.pread(fds[-1], 2, 0) == os.pread(fds[1], 2, 0) != b""
for fd in fds[::3]: os.close(fd)
assert [os.open("/dev/null", os.O_RDONLY) for i in range(3)] == fds[:9:3]
assert len(os.listdir("/proc/self/fd")) == 3 + 100000 - 33334 + 3 + 1
os.closerange(3, 100100)
print("ok")`)
		if r.out != "ok\n" {
			t.Error(r)
		}
	})
}

// TestManyMappings is a process with 100,000 mappings.
func TestManyMappings(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		r := sandbox{platform: p, dir: "/", limit: 5 * time.Minute}.run(t, "python3", "-c", `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
n = 100000
at = libc.mmap(None, n * 4096, 3, 0x4022, -1, 0)
for i in range(0, n, 2):
    assert libc.mprotect(at + i * 4096, 4096, 1) == 0, (i, ctypes.get_errno())
assert sum(1 for l in open("/proc/self/maps")) >= n
for i in (1, n // 2 + 1, n - 1):
    ctypes.memset(at + i * 4096, 7, 1)
    assert ctypes.string_at(at + i * 4096, 1) == b"\x07"
assert libc.munmap(at, n * 4096) == 0
assert sum(1 for l in open("/proc/self/maps")) < 1000
print("ok")`)
		if r.out != "ok\n" {
			t.Error(r)
		}
	})
}

// TestBigFile reads a file of the host from one end to the other.
func TestBigFile(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		const size = 1 << 30
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		for off := int64(0); off < size; off += 97 << 20 {
			f.WriteAt([]byte(fmt.Sprint("at ", off)), off)
		}
		script := "cd " + dir + ` && cat f >/dev/null; s=$EPOCHREALTIME; dd if=f of=/dev/null bs=128k 2>/dev/null; echo "$s $EPOCHREALTIME" >&2; dd if=f bs=128k 2>/dev/null | cksum && python3 -c 'import mmap; f = open("f"); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(m.find(b"at 10171"), m[` + fmt.Sprint(9*97<<20) + `:][:12])' && tail -c 5 f | od -c`
		want := command(t, 5*time.Minute, "/", "", "bash", "-c", script)
		got := sandbox{platform: p, dir: "/", limit: 5 * time.Minute}.run(t, "bash", "-c", script)
		if got.code != 0 || got.out != want.out {
			t.Error(differ(got, want))
		}
		rate := func(r result) float64 {
			var from, to float64
			fmt.Sscan(r.err, &from, &to)
			return size / 1e6 / (to - from)
		}
		t.Logf("host %.1fs, sandbox %.1fs; dd alone: %.0f MB/s, %.0f MB/s", want.took.Seconds(), got.took.Seconds(), rate(want), rate(got))
	})
}

// TestOwners: who owns the files of a host directory is seen from inside as from outside, however often one looks and whoever changed it.
func TestOwners(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("an ordinary user has files of one owner")
	}
	platforms(t, func(t *testing.T, p string) {
		dir := t.TempDir()
		os.Mkdir(filepath.Join(dir, "d"), 0o755)
		os.WriteFile(filepath.Join(dir, "f"), nil, 0o644)
		os.Chown(filepath.Join(dir, "d"), 65534, 1234)
		os.Chown(filepath.Join(dir, "f"), 4711, 0)
		got := sandbox{platform: p, flags: []string{"--volume=" + dir + ":/mnt"}}.run(t, "bash", "-c", `cd /mnt; look() { stat -c '%n %u %g' . d f new 2>/dev/null; }
look; sleep 0.1; look; look; echo x >> f; look; sleep 0.1; look; chown 7:8 f; echo > new; look; sleep 0.1; look; look`)
		first := ". 0 0\nd 65534 1234\nf 4711 0\n"
		last := ". 0 0\nd 65534 1234\nf 7 8\nnew 0 0\n"
		if want := strings.Repeat(first, 5) + strings.Repeat(last, 3); got.out != want || got.code != 0 {
			t.Errorf("want %q\n%v", want, got)
		}
	})
}

// TestSharedOutput: a file that is the standard input and output of the sandbox and of what runs before, beside and after it has one position for all.
func TestSharedOutput(t *testing.T) {
	need(t, "python3")
	platforms(t, func(t *testing.T, p string) {
		const text = `printf 'line1\nline2\nline3\nline4\nline5\nline6\n' > in
( read a; echo got $a; { $M sh -c 'read b; echo b $b >&2; echo go > go; while [ -e go ]; do sleep 0.02; done; echo after' <&3 & } 3<&0; while [ ! -s go ]; do sleep 0.02; done; echo beside; rm go; wait; read c; echo c $c; $M head -c 6
$M python3 -c 'import os; print(os.lseek(0, 0, 1), os.lseek(0, -6, 2), os.read(0, 2), os.pread(0, 3, 0), os.lseek(0, 0, 1)); os.lseek(1, 0, 0); os.write(1, b"GOT")'; cat; echo >&2 end ) < in > out 2>&1
$M sh -c 'echo a; echo b' >> out; $M sh -c 'echo x; dd if=/dev/zero bs=1 seek=5 count=1 conv=notrunc 2>/dev/null; echo y' > o; $M sh -c 'cat in -' < in >> out; od -c o >> out; cat out`
		run := func(m string) result {
			return command(t, time.Minute, t.TempDir(), "", "bash", "-c", `M="`+m+`"`+"\n"+text)
		}
		want, got := run("env"), run(moat+" do --platform="+p+" --volume $PWD:$PWD --")
		if got.out != want.out || got.code != want.code {
			t.Error(differ(got, want))
		}
	})
}
