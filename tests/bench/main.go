// Command bench measures moat beside the native kernel, runc and runsc, in interleaved runs on one machine.
//
//	go run ./tests/bench -moat bin/moat -runsc PATH [-runc PATH] [-rounds N] [-parts calls,programs,sandbox,network] [-only REGEX] [-out DIR]
//
// A round runs every case on every runner in turn, case by case, so that what the machine's neighbours do meets all runners alike. Absolute times
// drift all the same: the ratios are what to read.
//
// It runs as root, in a mount namespace of its own.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inNamespace is set in the environment of the process that measures.
const inNamespace = "MOAT_BENCH_NAMESPACE"

// bench is one run.
type bench struct {
	work    string // a tmpfs of the run's own
	runners []runner
	rounds  int
	only    *regexp.Regexp
	all     samples
}

func main() {
	moat := flag.String("moat", "bin/moat", "the moat binary")
	runsc := flag.String("runsc", "", "the runsc binary; empty leaves it out")
	runc := flag.String("runc", "", "the runc binary; empty leaves it out")
	platforms := flag.String("platforms", "trap,ptrace", "moat platforms, comma separated")
	rounds := flag.Int("rounds", 3, "rounds of each runner")
	only := flag.String("only", "", "regular expression of cases")
	parts := flag.String("parts", "calls,programs,sandbox,network", "what to measure, comma separated")
	out := flag.String("out", "", "write results.json, README.md and plot.svg to this directory; empty: only the table, to standard output")
	flag.Parse()
	if os.Getenv(inNamespace) == "" {
		os.Exit(again())
	}
	b := &bench{rounds: *rounds, only: regexp.MustCompile(*only), all: samples{}}
	cleanup := b.workspace()
	defer cleanup()
	b.addRunners(*moat, *runsc, *runc, strings.Split(*platforms, ","))
	for _, p := range strings.Split(*parts, ",") {
		switch p {
		case "calls":
			b.calls()
		case "programs":
			b.programs()
		case "sandbox":
			b.sandbox()
		case "network":
			b.network()
		default:
			check(fmt.Errorf("-parts: %q is none of calls, programs, sandbox, network", p))
		}
	}
	report(b, *out)
}

// again runs this program in a mount namespace of its own, where its mounts end with it.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// workspace makes the directory that files of the run go to: a tmpfs, world-readable, since runc's root is laid over it.
func (b *bench) workspace() (cleanup func()) {
	check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	dir, err := os.MkdirTemp("", "moat-bench")
	check(err)
	check(os.Chmod(dir, 0o755))
	check(unix.Mount("bench", dir, "tmpfs", 0, "mode=755"))
	b.work = dir
	for _, d := range []string{"bin", "shared"} {
		check(os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	return func() {
		unix.Unmount(dir, unix.MNT_DETACH)
		os.Remove(dir)
	}
}

// each calls fn for every runner of every round, for the cases that were asked for.
func (b *bench) each(names []string, fn func(r *runner, name string)) {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !b.only.MatchString(n) })
	for round := range b.rounds {
		for _, n := range names {
			fmt.Fprintf(os.Stderr, "\r\033[Kround %d: %s", round+1, n)
			for i := range b.runners {
				fn(&b.runners[i], n)
			}
		}
	}
	fmt.Fprint(os.Stderr, "\r\033[K")
}

// compile makes a static program of a C file beside this one.
func (b *bench) compile(name string, flags ...string) string {
	out := filepath.Join(b.work, "bin", name)
	cmd := exec.Command("gcc", append([]string{"-O2", "-pthread", "-o", out, "tests/bench/prog/" + name + ".c"}, flags...)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	check(cmd.Run())
	return out
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
