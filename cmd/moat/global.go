package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"moat/cmd/moat/container"
	"moat/sentry/boot"
)

// globals are the flags that may stand before any verb: runc's, and how a sandbox is run.
type globals struct {
	root, log, logFormat, rootless string
	systemd                        bool
	common
}

var global globals

func (g *globals) add(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&g.root, "root", defaultRoot(), "directory of the containers' state")
	f.StringVar(&g.log, "log", "", "file to append moat's own messages to (default: standard error)")
	f.StringVar(&g.logFormat, "log-format", "text", "format of the messages in --log: text or json")
	f.BoolVar(&g.systemd, "systemd-cgroup", false, "cgroupsPath is SLICE:PREFIX:NAME; the cgroup is made as systemd would place it")
	f.StringVar(&g.rootless, "rootless", "auto", "accepted for runc's callers: moat sees for itself what it may do")
	f.Lookup("rootless").NoOptDefVal = "true"
	f.String("criu", "", "accepted for runc's callers")
	f.MarkHidden("criu")
	g.common.add(f)
}

// check finds mistakes in the flags.
func (g *globals) check() error {
	if g.logFormat != "text" && g.logFormat != "json" {
		return fmt.Errorf("--log-format: %q is neither text nor json", g.logFormat)
	}
	root, err := filepath.Abs(g.root)
	g.root = root
	return err
}

func defaultRoot() string {
	if !container.Privileged() {
		if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
			return filepath.Join(d, "moat")
		}
		return filepath.Join(os.TempDir(), fmt.Sprintf("moat-%d", os.Geteuid()))
	}
	return "/run/moat"
}

// message logs one line: to --log, in its format, or to standard error.
func (g *globals) message(level, text string) {
	if g.log == "" && level != "debug" {
		if level != "error" {
			fmt.Fprintf(os.Stderr, "moat: %s: %s\n", level, text)
		}
		return
	}
	f := os.Stderr
	if g.log != "" {
		var err error
		if f, err = os.OpenFile(g.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_CLOEXEC, 0o644); err != nil {
			fmt.Fprintf(os.Stderr, "moat: --log: %v\n", err)
			return
		}
		defer f.Close()
	}
	now := time.Now().UTC().Format(time.RFC3339)
	if g.logFormat == "json" {
		b, _ := json.Marshal(map[string]string{"level": level, "msg": text, "time": now})
		fmt.Fprintf(f, "%s\n", b)
		return
	}
	fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, text)
}

func warn(text string) { global.message("warning", text) }

// load finds a container without locking it, lock with.
func load(id string) (*container.Container, error) { return container.Load(global.root, id) }
func lock(id string) (*container.Container, error) { return container.Lock(global.root, id) }

// verb is a subcommand about one container.
func verb(use, short string, run func(cmd *cobra.Command, id string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, args[0]) }}
}

// locked calls f with a locked container.
func locked(id string, f func(*container.Container) error) error {
	c, err := lock(id)
	if err != nil {
		return err
	}
	defer c.Unlock()
	return f(c)
}

// bundleFlags are those of verbs that make a container.
type bundleFlags struct {
	bundle      string
	preserveFDs int
	create      container.CreateOptions
}

func (b *bundleFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&b.bundle, "bundle", "b", ".", "directory with config.json")
	f.StringVar(&b.create.PIDFile, "pid-file", "", "file that gets the number of the container's process on the host")
	f.StringVar(&b.create.ConsoleSocket, "console-socket", "", "socket that gets the master of the container's terminal")
	f.IntVar(&b.preserveFDs, "preserve-fds", 0, "pass this many descriptors from 3 on to the container's process")
	for _, name := range []string{"no-pivot", "no-new-keyring", "no-subreaper"} {
		f.Bool(name, false, "accepted for runc's callers; it means nothing to moat")
	}
	f.StringVar(&b.create.PIDFDSocket, "pidfd-socket", "", "socket that gets a pidfd of the container's process on the host")
}

// options reads the bundle.
func (b *bundleFlags) options(cmd *cobra.Command, id string) (*container.Options, error) {
	o, err := container.LoadBundle(global.root, b.bundle, id, warn)
	if err != nil {
		return nil, err
	}
	if o.Extra, err = container.Inherited(b.preserveFDs); err != nil {
		return nil, err
	}
	b.create.Root, b.create.Systemd = global.root, global.systemd
	memory := o.Config.Memory
	if err := global.apply(o); err != nil {
		return nil, err
	}
	if memory != 0 && (o.Config.Memory == 0 || memory < o.Config.Memory) {
		o.Config.Memory = memory
	}
	if global.debugLog == "" && !o.Config.Debug && !o.Config.Strace {
		o.Log = nil
	}
	return o, nil
}

// fail is the exit code of errors of runc's verbs.
const fail = 1

// runcVerbs exit with runc's codes rather than with boot.ExitFailure.
var runcVerbs = strings.Fields("create start state kill delete run list exec ps pause resume events update spec features debug checkpoint restore install uninstall")

func failureCode(verb string) int {
	switch {
	case verb == "exec":
		return 255
	case slices.Contains(runcVerbs, verb):
		return fail
	}
	return boot.ExitFailure
}
