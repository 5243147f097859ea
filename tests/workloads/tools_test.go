package workloads

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestGit(t *testing.T) {
	need(t, "git")
	scriptFor(t, 5*time.Minute, `
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_GLOBAL=/dev/null
git init -q -b main r; cd r
for i in $(seq 2000); do echo "file $i" > f$i; done
git add .; git commit -q -m first; git rev-parse HEAD
for i in $(seq 50); do echo more >> f$i; done; git commit -qam second; git log --oneline | wc -l
git gc -q; git fsck 2>&1; git count-objects -v | grep in-pack
cd ..; git clone -q r c; cd c; git rev-parse HEAD; git status --short | wc -l; git diff HEAD~1 --stat | tail -1`)
}

func TestSQLite(t *testing.T) {
	need(t, "sqlite3")
	scriptFor(t, 5*time.Minute, `
(echo 'PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n INT);'
for b in $(seq 100); do
	echo "BEGIN; WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<1000) INSERT INTO t(v,n) SELECT hex(i*$b), i FROM c; COMMIT;"
done
echo 'CREATE INDEX i ON t(n); SELECT count(*), sum(n), max(v) FROM t; PRAGMA integrity_check; PRAGMA wal_checkpoint(TRUNCATE); DELETE FROM t WHERE n%3=0; VACUUM; SELECT count(*) FROM t;') | sqlite3 db
ls db*
# Two processes at once.
(for i in $(seq 50); do echo "PRAGMA busy_timeout=20000; INSERT INTO t(v,n) VALUES('x',$i);"; done | sqlite3 db >/dev/null) & (for i in $(seq 50); do echo "PRAGMA busy_timeout=20000; INSERT INTO t(v,n) VALUES('y',$i);"; done | sqlite3 db >/dev/null); wait
sqlite3 db "SELECT count(*) FROM t WHERE v IN ('x','y'); PRAGMA integrity_check"`)
}

func TestGCC(t *testing.T) {
	need(t, "gcc")
	scriptFor(t, 5*time.Minute, `
set -e
(echo '#include <stdio.h>'; for i in $(seq 1250); do printf 'static unsigned f%d(unsigned x)\n{\n\treturn x * %du + (x >> 3);\n}\n' $i $((i*2+1)); done
echo 'int main(void) { unsigned x = 1;'; for i in $(seq 1250); do echo "x = f$i(x);"; done; echo 'printf("%u\n", x); return 0; }') > big.c
wc -l big.c; gcc -O1 -o big big.c; ./big; gcc -static -o bigs big.c; ./bigs; gcc -O0 -shared -fPIC -o libbig.so big.c; nm -D libbig.so | grep -c ' T '`)
}

func TestPython(t *testing.T) {
	need(t, "/usr/bin/python3")
	prog, err := filepath.Abs("testdata/everything.py")
	if err != nil {
		t.Fatal(err)
	}
	scriptFor(t, 3*time.Minute, "/usr/bin/python3 "+prog)
}

func TestPerl(t *testing.T) {
	need(t, "perl")
	script(t, `perl -MPOSIX -MIO::Socket -e '
$SIG{ALRM}=sub{print "alarm\n"}; alarm 1; pause();
my $pid=fork(); if(!$pid){exit 7} waitpid($pid,0); print $?>>8, "\n";
open my $f, "-|", "echo from child" or die; print <$f>; close $f;
my %h; $h{$_ % 97} += $_ for 1..200000; my $s=0; $s += $h{$_} for sort keys %h; print "$s\n";
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite $a, "pair\n"; print scalar <$b>;
print POSIX::strftime("%F", gmtime(0)), "\n"; printf "%s\n", join ",", map { sprintf "%o", $_ } (stat("/etc/passwd"))[2];'`)
}

func TestNode(t *testing.T) {
	need(t, "node")
	prog, err := filepath.Abs("testdata/workers.js")
	if err != nil {
		t.Fatal(err)
	}
	scriptFor(t, 3*time.Minute, "node "+prog)
}

func TestJava(t *testing.T) {
	need(t, "java", "javac")
	src, err := filepath.Abs("testdata/Threads.java")
	if err != nil {
		t.Fatal(err)
	}
	scriptFor(t, 5*time.Minute, "java -version 2>&1 | head -1; javac -d . "+src+" && java -cp . Threads")
}

// TestGoProgram runs a Go program built on the host.
func TestGoProgram(t *testing.T) {
	need(t, "go")
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	src, err := filepath.Abs("testdata/goprog/main.go")
	if err != nil {
		t.Fatal(err)
	}
	r := command(t, 3*time.Minute, "", "", "go", "build", "-o", filepath.Join(dir, "prog"), src)
	if r.code != 0 {
		t.Fatal(r)
	}
	script(t, filepath.Join(dir, "prog"))
}

// TestGoBuild runs the Go compiler itself, without anything cached.
func TestGoBuild(t *testing.T) {
	long(t)
	need(t, "go")
	src, err := filepath.Abs("testdata/goprog/main.go")
	if err != nil {
		t.Fatal(err)
	}
	scriptFor(t, 20*time.Minute, "export GOCACHE=$PWD/cache GOFLAGS=; cp "+src+" . && go build -o prog main.go && ./prog && rm -rf cache")
}

// TestMake builds C projects from Debian's source packages: one with configure, one with a plain Makefile.
func TestMake(t *testing.T) {
	long(t)
	need(t, "gcc", "make")
	dir := sourcePackage(t, "hello")
	scriptFor(t, 5*time.Minute, `set -e; cp -r `+dir+` src; cd src; ./configure -q >/dev/null 2>&1; make -j2 >/dev/null 2>&1; ./hello; ./hello --version | head -1; make -j2 check 2>&1 | grep '^# '`)
}

func TestMakeLua(t *testing.T) {
	long(t)
	need(t, "gcc", "make")
	dir := sourcePackage(t, "lua5.4")
	scriptFor(t, 5*time.Minute, `set -e; cp -r `+dir+`/src src; cd src; make -j2 a CC="gcc -std=gnu99" MYCFLAGS=-DLUA_USE_POSIX 2>&1 | grep -c gcc; make -j2 lua CC="gcc -std=gnu99" MYCFLAGS=-DLUA_USE_POSIX >/dev/null 2>&1
./lua -e 'local t = {} for i = 1, 200000 do t[i] = (i * 7919) % 100003 end table.sort(t) print(t[1], t[#t], string.format("%.10f", math.pi), collectgarbage("count") > 0)' 2>&1 | sed 's/^[^:]*: //'
./lua -e 'print(io.popen("echo from popen"):read("l")) local f = assert(io.open("out", "w")) f:write(("x"):rep(1e6)) f:close() print(#io.open("out"):read("a")) coroutine.wrap(function() print(coroutine.isyieldable()) end)()'`)
}

func TestTmux(t *testing.T) {
	need(t, "tmux")
	checks(t, time.Minute, `
export TMUX_TMPDIR=$PWD
tmux new-session -d -s one -x 80 -y 24 'echo inside tmux; sleep 30' || exit 1
sleep 0.5; tmux list-sessions -F '#S #{session_windows}'; tmux capture-pane -p -t one | head -1; tmux kill-server; echo ok`, "ok")
}

// TestManyFiles is a directory of 100,000 entries: making, listing and unlinking them is linear, in requests to the gofer too. (What is quadratic in the
// sandbox does not come to its end in time.)
func TestManyFiles(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		for _, dir := range []string{"/tmp", "/mnt"} {
			measure := func(n int) int {
				out, reqs := requests(t, p, fmt.Sprintf(`perl -MTime::HiRes=time -e '
mkdir "%s/many" or die; chdir "%[1]s/many"; for my $i (1..%[2]d) { open my $f, ">", "f$i" or die; }
my $t = time; opendir my $d, "." or die; my @n = readdir $d; closedir $d; scalar(@n) == %[2]d + 2 or die; unlink("f$_") == 1 or die for 1..%[2]d; printf "%%.2f", time - $t;
opendir $d, "." or die; scalar(@n = readdir $d) == 2 or die; chdir "/"; rmdir "%[1]s/many" or die' `, dir, n), "--volume="+t.TempDir()+":/mnt")
				t.Logf("%s: %d entries: %d requests, listed and unlinked in %ss", dir, n, reqs, out)
				return reqs
			}
			small, large := measure(10_000), measure(100_000)
			most := 11 * small
			if dir == "/tmp" { // in memory
				most = small + 100
			}
			if large > most {
				t.Errorf("%s: 10,000 entries take %d requests, 100,000 take %d", dir, small, large)
			}
		}
	})
}
