package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"moat/cmd/moat/container"
	"moat/sentry/boot"
)

// common are the flags about how a sandbox is run.
type common struct {
	platform, network, memory, debugLog, pcap string
	strace, debug, unsafe                     bool
}

func (c *common) add(f *pflag.FlagSet) {
	f.StringVar(&c.platform, "platform", boot.DefaultPlatform, "how guest code is run: "+strings.Join(boot.Platforms(), ", "))
	f.StringVar(&c.network, "network", "", "network of the sandbox: none or loopback: lo alone (the default of do, and of who is not root); sandbox: the interfaces of the network namespace; user (do only): out through pasta or slirp4netns; host: the host kernel's own sockets, with a WIDER filter")
	f.StringVar(&c.memory, "memory", "", "limit of the sandbox's memory, like 512M (default: the host's memory)")
	f.BoolVar(&c.strace, "strace", false, "print the container's system calls to the log")
	f.BoolVar(&c.debug, "debug", false, "log more")
	f.StringVar(&c.debugLog, "debug-log", "", "file to append the sandbox's log to; %ID% in it is the container's (default: standard error)")
	f.StringVar(&c.pcap, "debug-pcap", "", "file to record the packets of the interfaces beside lo in")
	f.BoolVar(&c.unsafe, "debug-unsafe", false, "run the sentry and the gofer WITHOUT their seccomp filters, for debugging moat")
}

// apply sets what the flags say in o.
func (c *common) apply(o *container.Options) error {
	cfg := &o.Config
	cfg.Platform, cfg.Network, cfg.Strace, cfg.Debug, cfg.Unsafe = c.platform, c.network, c.strace, c.debug, c.unsafe
	switch cfg.Network {
	case "":
		if cfg.Network = "sandbox"; cfg.Plain || os.Geteuid() != 0 {
			cfg.Network = "loopback"
		}
	case "none", "loopback", "sandbox":
	case "host":
		warn("--network host: the container's sockets are the host kernel's, in its network, and the sentry's filter lets them through (moat surface --network host)")
	case "user":
		if !cfg.Plain {
			return fmt.Errorf("--network user: only moat do has it; a container gets its network from its engine")
		}
	default:
		return fmt.Errorf("--network: %q is none of none, loopback, sandbox, user and host", cfg.Network)
	}
	if o.HostNet && !cfg.Plain && cfg.Network == "sandbox" {
		warn("linux.namespaces: there is no network namespace; the host's interfaces are out of the sandbox's reach and it has lo alone, without --network host")
	}
	if c.pcap != "" {
		f, err := os.OpenFile(c.pcap, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("--debug-pcap: %w", err)
		}
		o.Pcap = f
	}
	if c.memory != "" {
		n, err := parseSize(c.memory)
		if err != nil {
			return fmt.Errorf("--memory: %w", err)
		}
		cfg.Memory = n
	}
	o.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	o.Log = os.Stderr
	if c.debugLog != "" {
		f, err := os.OpenFile(strings.ReplaceAll(c.debugLog, "%ID%", o.ID), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("--debug-log: %w", err)
		}
		o.Log = f
	}
	if c.unsafe {
		fmt.Fprintln(os.Stderr, "moat: WARNING: --debug-unsafe: the sandbox runs without seccomp filters; do not run what you do not trust")
	}
	return nil
}

// minMemory is what the smallest program needs.
const minMemory = 16 << 20

// parseSize reads a size of memory for a sandbox.
func parseSize(s string) (uint64, error) {
	n, err := sizeOf(s)
	if err == nil && n < minMemory {
		err = fmt.Errorf("%s is too little; the least is %dM", s, minMemory>>20)
	}
	return n, err
}

// sizeOf reads a number of bytes with an optional K, M, G or T.
func sizeOf(s string) (uint64, error) {
	var n uint64
	unit := ""
	if c, _ := fmt.Sscanf(s, "%d%s", &n, &unit); c == 0 {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	shift, ok := map[string]uint{"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}[strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(unit), "B"), "I")]
	if !ok || n > 1<<63>>shift {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}
