package container

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hooksOf is the container's hooks; never nil.
func (c *Container) hooksOf() *specs.Hooks {
	if c.Spec == nil || c.Spec.Hooks == nil {
		return &specs.Hooks{}
	}
	return c.Spec.Hooks
}

// runHooks runs hooks on the host, one after the other, with the container's state on their standard input.
func (c *Container) runHooks(name string, hooks []specs.Hook, status string) error {
	if len(hooks) == 0 {
		return nil
	}
	state, err := c.stateJSON(status)
	if err != nil {
		return err
	}
	for i, h := range hooks {
		if err := runHook(&h, state); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", name, i, err)
		}
	}
	return nil
}

func runHook(h *specs.Hook, state string) error {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if h.Timeout != nil {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
	}
	defer cancel()
	c := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		c.Args = h.Args
	}
	c.Env = h.Env
	if c.Env == nil {
		c.Env = []string{}
	}
	c.WaitDelay = time.Second
	c.Stdin = strings.NewReader(state)
	var out tail
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("%s: it took longer than its timeout of %d s", h.Path, *h.Timeout)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", h.Path, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// inNetwork calls f on a thread that is in the network namespace of a process.
func inNetwork(pid int, f func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return inNamespace(ns, f)
}

// inNamespace calls f on a thread in the network namespace ns. The thread ends with it if it cannot be brought back.
func inNamespace(ns *os.File, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		if err == nil {
			defer own.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
