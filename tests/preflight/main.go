// preflight says by its exit code whether this host lets a process install a seccomp filter, without which no sandbox starts. A kernel can be in a state in
// which it does so no more until it is booted anew (see compile of platform/stub): who asks then sleeps for good, so a process of its own asks.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/seccomp"
)

// patience is what a busy machine may take for what is done in a millisecond.
const patience = 30 * time.Second

func main() {
	if len(os.Args) > 1 {
		runtime.LockOSThread()
		p := seccomp.Program{Options: seccomp.ProgramOptions{DefaultAction: seccomp.Allow, BadArchAction: seccomp.Allow}}
		instrs, _, err := p.Build()
		if err == nil {
			err = seccomp.SetFilter(instrs)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "preflight:", err)
			os.Exit(1)
		}
		return
	}
	c := exec.Command("/proc/self/exe", "install")
	c.Stderr = os.Stderr // a file: nobody waits for a pipe that the process holds open
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "preflight:", err)
		os.Exit(1)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			os.Exit(1)
		}
	case <-time.After(patience):
		c.Process.Kill()
		fmt.Fprintf(os.Stderr, "preflight: the host's kernel has not installed a seccomp filter in %v: no sandbox can start before it is booted anew\n", patience)
		os.Exit(1)
	}
}
