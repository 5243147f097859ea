package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// runtime is one way to run a unit.
type runtime struct {
	name string
	argv []string
}

var allRuntimes = []string{"host", "runsc", "moat", "moat-ptrace"}

// native makes what a sandbox has, too: namespaces, the host's root with a layer in memory over it, terminals of its own, and no interface but lo.
const native = `set -e
d=$(mktemp -d)
mount -t tmpfs suites $d
mkdir $d/upper $d/work $d/root
mount -t overlay -o lowerdir=/,upperdir=$d/upper,workdir=$d/work overlay $d/root
cd $d/root
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount --bind dev/pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 shm dev/shm
if [ -d dev/mqueue ]; then mount -t mqueue mqueue dev/mqueue; fi
pivot_root . mnt
umount -l mnt
ip link set lo up
# What no sandbox may do to the host: set its clock, load modules, reboot.
exec setpriv --bounding-set=-sys_time,-sys_module,-sys_boot "$@"`

func findRuntimes(names []string, moat, runsc string) (rs []runtime, err error) {
	for _, n := range names {
		r := runtime{name: n}
		bin := moat
		switch n {
		case "host":
			bin = "unshare"
			r.argv = []string{"--mount", "--pid", "--ipc", "--net", "--uts", "--fork", "--kill-child", "sh", "-c", native, "sh"}
		case "runsc":
			bin = runsc
			r.argv = []string{"--root", filepath.Join(os.TempDir(), "suites-runsc"), "--platform=systrap", "--network=none", "--ignore-cgroups", "do"}
		case "moat":
			r.argv = []string{"do", "--platform=trap", "--"}
		case "moat-ptrace":
			r.argv = []string{"do", "--platform=ptrace", "--"}
		default:
			return nil, fmt.Errorf("%q is none of %s", n, strings.Join(allRuntimes, ", "))
		}
		path, err := exec.LookPath(bin)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		r.argv = append([]string{path}, r.argv...)
		rs = append(rs, r)
	}
	return rs, nil
}

// environment is the same for all, and so is /tmp, a file system of its own.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "TMPDIR=/tmp", "SHELL=/bin/sh"}

// run runs a unit and leaves what it prints in logs. What timeout(1) kills is reported as broken, and what dies of a signal.
func (r *runtime) run(prefix []string, s *suite, u unit, logs string) (outcome, error) {
	if u.timeout == 0 {
		u.timeout = longest
	}
	argv := slices.Concat(prefix, []string{"timeout", "--signal=KILL", fmt.Sprint(u.timeout.Seconds()), "setpriv", "--pdeathsig=KILL"}, r.argv,
		[]string{"sh", "-c", "mount -t tmpfs -o mode=1777 tmp /tmp; cd " + u.dir + " || exit 99\n" + u.script})
	file := filepath.Join(logs, strings.ReplaceAll(u.name, "/", "_")+".log")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return outcome{}, err
	}
	// runsc has an offset for each descriptor: without O_APPEND what goes to one overwrites what went to the other.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		return outcome{}, err
	}
	defer f.Close()
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = environment
	c.Stdout, c.Stderr = f, f
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = c.Run()
	if c.ProcessState == nil {
		return outcome{}, err
	}
	out, rerr := os.ReadFile(file)
	if rerr != nil {
		return outcome{}, rerr
	}
	o := s.parse(out)
	status := c.ProcessState.ExitCode()
	switch {
	case o.Broken != "":
	case status < 0 || status == 137:
		o.Broken = "timed out or killed"
	case len(o.Tests) == 0:
		o.Broken = fmt.Sprintf("no results; exit status %d", status)
	}
	return o, nil
}
