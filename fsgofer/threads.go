package fsgofer

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Godebug is the GODEBUG that a gofer under its filter must be started with: no preemption by signals, which needs tgkill, no names for mappings,
// which needs prctl, and no heap profile, for which nobody could ask.
const Godebug = "asyncpreemptoff=1,decoratemappings=0,memprofilerate=0"

// makeThreads has the runtime make n threads, which it keeps. It takes another when a goroutine blocks in a system call while others can run: never more
// than there are workers and Ps, and as many again on the way between two of these.
func makeThreads(n int) {
	var on, off sync.WaitGroup
	on.Add(n)
	off.Add(n)
	for range n {
		go func() {
			runtime.LockOSThread() // so that each is on a thread of its own
			on.Done()
			on.Wait()
			runtime.UnlockOSThread()
			off.Done()
		}()
	}
	off.Wait()
}

// growStack makes the stack of a goroutine as large as it will be. Copying it to a larger one later takes what the program says of each function on it.
//
//go:noinline
func growStack() {
	var room [4 << 10]byte
	runtime.KeepAlive(&room)
}

// settle waits until every thread of the process has been asleep once, and so has come up, and leaves nothing to read in the runtime's event
// descriptor. The working directory is /proc/self/fd. On a busy machine it takes its time.
func settle() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	up := map[string]bool{strconv.Itoa(unix.Gettid()): true}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		left := 0
		tasks, err := os.ReadDir("../task")
		for _, t := range tasks {
			if up[t.Name()] {
				continue
			}
			b, err := os.ReadFile("../task/" + t.Name() + "/stat")
			_, rest, ok := strings.Cut(string(b), ") ")
			if up[t.Name()] = err != nil || ok && strings.HasPrefix(rest, "S"); !up[t.Name()] { // an error: it is gone
				left++
			}
		}
		switch {
		case err != nil:
			return fmt.Errorf("gofer: its threads: %w", err)
		case left == 0:
			return drain()
		case time.Now().After(deadline):
			return fmt.Errorf("gofer: %d of its %d threads do not come up", left, len(tasks))
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// drain empties event descriptors: the runtime's, which is the only one.
func drain() error {
	fds, err := os.ReadDir(".")
	for _, f := range fds {
		if to, _ := os.Readlink(f.Name()); to == "anon_inode:[eventfd]" {
			fd, _ := strconv.Atoi(f.Name())
			unix.Read(fd, make([]byte, 8)) // EAGAIN if it is
		}
	}
	return err
}
