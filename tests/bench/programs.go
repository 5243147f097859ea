package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// program is a whole command whose wall time is measured, with the sandbox' start and without. It works in the directory $D, which is empty and on the
// container's root; $S is the shared directory, with what setup left there, $B has the programs of prog.
type program struct{ name, shell string }

// programs are what a user waits for.
var programs = []program{
	{"true", "true"},
	{"python3 -c pass", "python3 -c pass"},
	{"python3 loop", `python3 -c 'sum(i*i for i in range(3000000))'`},
	{"python3 unittest", `cd $S/py && python3 -m unittest -q tests 2>/dev/null`},
	{"200 threads, one lock", "$B/contend > /dev/null"},
	{"OpenMP, 8 threads", "$B/omp > /dev/null"},
	{"gcc 5000 lines", `gcc -O1 -c -o $D/a.o $S/a.c`},
	{"make -j2 of 60 files", `cp -r $S/proj $D/p && make -s -j2 -C $D/p`},
	{"sh 300 forks", `i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done`},
	{"find /usr", "find /usr -xdev > /dev/null"},
	{"tar of /usr/include", "tar cf $D/t.tar /usr/include 2>/dev/null && tar tf $D/t.tar > /dev/null"},
	{"gzip 32 MB", "head -c 32000000 /dev/zero | gzip > $D/z.gz"},
	{"git status, 20000 files", `git -C $S/repo status --porcelain`},
	{"git init, 500 files", `cd $D && git init -q . && for i in $(seq 500); do echo $i > f$i; done && git add . && git -c user.name=a -c user.email=a@b commit -qm x && git status > /dev/null`},
	{"sqlite 20000 inserts", `cd $D && (echo 'begin;create table t(a,b);'; seq 20000 | sed 's/.*/insert into t values(&,"x&");/'; echo 'commit;') | sqlite3 s.db`},
	{"node", `node -e 'let s=0;for(let i=0;i<1e6;i++)s+=i;console.log(s)' > /dev/null`},
	{"go build", `cd $S/gopkg && HOME=$D GOCACHE=$D/c GOFLAGS=-mod=mod GOPROXY=off CGO_ENABLED=0 go build -p 2 -o $D/x .`},
}

// setup makes what the programs read, in the shared directory.
const setup = `set -e
cd "$1"
python3 -c 'for i in range(2500): print("int f%d(int a){return a*%d+1;}\n"%(i,i))' > a.c
mkdir proj; for i in $(seq 60); do printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f%d(int a){ return printf("%%d", a * %d); }\n' $i $i > proj/f$i.c; done
printf 'int main(void){ return 0; }\n' > proj/main.c
printf 'O := $(patsubst %%.c,%%.o,$(wildcard *.c))\nall: main\nmain: $(O)\n\t$(CC) -o $@ $^\n%%.o: %%.c\n\t$(CC) -O1 -c -o $@ $<\n' > proj/Makefile
mkdir repo; cd repo; git init -q .
for d in $(seq 200); do mkdir d$d; for f in $(seq 100); do echo $d $f > d$d/f$f; done; done
git add .; git -c user.name=a -c user.email=a@b commit -qm x; git config --global --add safe.directory "$1/repo" 2>/dev/null || true
cd ..; mkdir py; cat > py/tests.py <<'X'
import json, os, re, subprocess, tempfile, threading, unittest
def make(i):
    def t(self):
        with tempfile.TemporaryDirectory() as d:
            p = os.path.join(d, "f")
            for k in range(20):
                with open(p, "w") as f: json.dump(list(range(k)), f)
                with open(p) as f: self.assertEqual(json.load(f), list(range(k)))
            self.assertEqual(len(os.listdir(d)), 1)
            th = [threading.Thread(target=lambda: re.sub("a", "b", "aaa" * 100)) for _ in range(4)]
            [x.start() for x in th]; [x.join() for x in th]
            if i % 10 == 0: self.assertEqual(subprocess.check_output(["echo", "x"]), b"x\n")
    return t
class T(unittest.TestCase): pass
for i in range(100): setattr(T, "test_%d" % i, make(i))
X
mkdir gopkg; printf 'module x\n\ngo 1.21\n' > gopkg/go.mod
printf 'package main\n\nimport ("fmt"; "net/url"; "os"; "text/template")\n\nfunc main() { template.Must(template.New("x").Parse("{{.}}")).Execute(os.Stdout, url.PathEscape(fmt.Sprint(os.Args))) }\n' > gopkg/main.go
`

func (b *bench) programs() {
	shared := filepath.Join(b.work, "shared")
	cmd := exec.Command("/bin/bash", "-c", setup, "setup", shared)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "HOME="+b.work)
	check(cmd.Run())
	b.compile("contend")
	bin := filepath.Dir(b.compile("omp", "-fopenmp"))
	byName := map[string]string{}
	var names []string
	for _, p := range programs {
		names, byName[p.name] = append(names, p.name), p.shell
	}
	pre := fmt.Sprintf("export PATH=%q S=%q B=%q HOME=%q; D=$(mktemp -d) && export D && a=$EPOCHREALTIME && (", path(), shared, bin, shared)
	b.each(names, func(r *runner, name string) {
		cmd := r.command("/bin/bash", "-c", pre+byName[name]+") > /dev/null; s=$?; z=$EPOCHREALTIME; rm -rf $D; echo $a $z; exit $s")
		cmd.Stderr = os.Stderr
		start := time.Now()
		out, err := cmd.Output()
		whole := time.Since(start)
		var from, to float64
		if err == nil {
			_, err = fmt.Sscan(string(out), &from, &to)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "\nbench: %s: %s: %v\n", r.name, name, err)
			return
		}
		b.all.add(partPrograms, r.name, name, float64(whole.Nanoseconds()))
		b.all.add(partInside, r.name, name, (to-from)*1e9)
	})
}

// path is Debian's, with that of the Go toolchain: what else the caller has there may be no program but a wrapper that starts twenty to find one.
func path() string {
	p := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if tool, err := exec.LookPath("go"); err == nil {
		p += ":" + filepath.Dir(tool)
	}
	return p
}
