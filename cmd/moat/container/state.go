package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"moat/sentry/boot"
)

// The files of a container's directory, ROOT/ID.
const (
	stateFile  = "state.json"
	socketFile = "control.sock"
	exitFile   = "exit.json"  // boot.ExitStatus, written by the sentry as its last deed
	sentryFile = "sentry.log" // last words
	goferFile  = "gofer.log"
)

// ErrNotExist: there is no container of that ID. The words are runc's; callers of runtimes look for them.
var ErrNotExist = errors.New("container does not exist")

// ErrNotRunning: the container has stopped. The words are runc's.
var ErrNotRunning = errors.New("container not running")

// hostProcess is a process of the host that cannot be mistaken for a later one of the same number.
type hostProcess struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in ticks after the host's boot (proc_pid_stat(5))
}

// newHostProcess describes a process that is there.
func newHostProcess(pid int) hostProcess {
	_, start := procStat(pid)
	return hostProcess{pid, start}
}

// procStat is a process' state letter and start time; 0 if there is none.
func procStat(pid int) (state byte, start uint64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return 0, 0
	}
	start, _ = strconv.ParseUint(f[19], 10, 64)
	return f[0][0], start
}

// alive reports whether the process is there and not a zombie.
func (p hostProcess) alive() bool {
	if p.PID <= 0 {
		return false
	}
	state, start := procStat(p.PID)
	return state != 0 && state != 'Z' && state != 'X' && start == p.Start
}

// signal sends a signal to this process and no other.
func (p hostProcess) signal(sig unix.Signal) error {
	if p.PID <= 0 {
		return unix.ESRCH
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !p.alive() {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// gone waits until the process has ended; false if that takes longer than d.
func (p hostProcess) gone(d time.Duration) bool {
	if !p.alive() {
		return true
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return !p.alive()
	}
	defer unix.Close(fd)
	for end := time.Now().Add(d); p.alive(); {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		ts := unix.NsecToTimespec(int64(left))
		unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, &ts, nil)
	}
	return true
}

// State is what is kept of a container.
type State struct {
	ID      string    `json:"id"`
	Bundle  string    `json:"bundle"`
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	// UID is the user on the host who made the container.
	UID int `json:"uid"`
	// Sandbox is the ID of the pod's sandbox whose sentry the container is in; "": it has one of its own.
	Sandbox string `json:"sandbox,omitempty"`
	// Shared: others have joined namespaces of the container, and so are in its sandbox, though no annotation makes it a pod's.
	Shared bool `json:"shared,omitempty"`
	// Init is the process that stands for the container's first process, its sentry or, in another's sandbox, its keeper: who made the container waits
	// for it. It is not set until it runs.
	Init  hostProcess `json:"init"`
	Gofer hostProcess `json:"gofer"`
	// Cgroup is the path below each hierarchy; "" if there is none.
	Cgroup string `json:"cgroup,omitempty"`
	// Ready: `create` is done. Started: `start` is.
	Ready   bool `json:"ready"`
	Started bool `json:"started"`
	// Spec is config.json without the mounts from the host; Process is it's process as the sentry got it, Resources those that were set last.
	Spec    *specs.Spec   `json:"spec"`
	Process *boot.Process `json:"process"`
}

// Container is a container's directory.
type Container struct {
	State
	dir  string
	lock *os.File // the directory, locked by flock(2); nil: not locked
	// starter is the connection over which the sandbox was made, if it was by this process.
	starter *Client
}

// Load reads a container's state without locking it.
func Load(root, id string) (*Container, error) {
	if !validID(id) {
		return nil, badID(id)
	}
	c := &Container{State: State{ID: id}, dir: filepath.Join(root, id)}
	if _, err := os.Stat(c.dir); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotExist
		}
		return nil, err
	}
	return c, c.read()
}

// read reads the state; a container whose state was never written was not created whole.
func (c *Container) read() error {
	b, err := os.ReadFile(filepath.Join(c.dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		s := State{}
		if err = json.Unmarshal(b, &s); err == nil {
			s.ID = c.ID
			c.State = s
			return nil
		}
	}
	return fmt.Errorf("%s: %w", filepath.Join(c.dir, stateFile), err)
}

// Lock loads a container and keeps others from changing it until Unlock.
func Lock(root, id string) (*Container, error) {
	c, err := Load(root, id)
	if err != nil {
		return nil, err
	}
	if err := c.acquire(); err != nil {
		return nil, err
	}
	if err := c.read(); err != nil {
		c.Unlock()
		return nil, err
	}
	return c, nil
}

// acquire locks the directory, which must still be the one of that name once the lock is had.
func (c *Container) acquire() error {
	d, err := os.Open(c.dir)
	if errors.Is(err, os.ErrNotExist) {
		return ErrNotExist
	}
	if err != nil {
		return err
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	var mine, there os.FileInfo
	if err == nil {
		mine, err = d.Stat()
	}
	if err == nil {
		there, err = os.Stat(c.dir)
	}
	if err != nil || !os.SameFile(mine, there) {
		d.Close()
		if err == nil || errors.Is(err, os.ErrNotExist) {
			err = ErrNotExist
		}
		return err
	}
	c.lock = d
	return nil
}

// Unlock lets others change the container.
func (c *Container) Unlock() {
	if c.lock != nil {
		c.lock.Close()
		c.lock = nil
	}
}

// busy reports whether somebody is changing the container now.
func (c *Container) busy() bool {
	d, err := os.Open(c.dir)
	if err != nil {
		return false
	}
	defer d.Close()
	return unix.Flock(int(d.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// save writes the state, whole or not at all.
func (c *Container) save() error {
	b, err := json.Marshal(&c.State)
	if err != nil {
		return err
	}
	return writeAtomic(filepath.Join(c.dir, stateFile), b, 0o600)
}

// writeAtomic makes path a file of b: temporary file, fsync, rename.
func writeAtomic(path string, b []byte, mode os.FileMode) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// Statuses of a container, as runc names them.
const (
	Creating = "creating"
	Created  = "created"
	Running  = "running"
	Paused   = "paused"
	Stopped  = "stopped"
)

// Status is the container's status now.
func (c *Container) Status() string {
	switch {
	case !c.Init.alive():
		if !c.Ready && c.lock == nil && c.busy() {
			return Creating
		}
		return Stopped
	case c.frozen():
		return Paused
	case c.Ready && c.inPod():
		return c.podStatus()
	case c.Started:
		return Running
	case !c.Ready:
		if c.lock == nil && c.busy() {
			return Creating
		}
		// Its creator died: the sentry is about to follow.
		return Stopped
	}
	// `start` may have died between starting and writing that down.
	if st, err := c.askStatus(); err == nil && st.Started {
		return Running
	}
	return Created
}

// ExitStatus is how the first process of a stopped container ended. A sentry that could not say was killed.
func (c *Container) ExitStatus() boot.ExitStatus {
	st := boot.ExitStatus{Signal: int(unix.SIGKILL)}
	if b, err := os.ReadFile(filepath.Join(c.dir, exitFile)); err == nil && len(b) > 0 && len(b) < 4096 {
		json.Unmarshal(b, &st)
	}
	return st
}

// OCIState is what `moat state` prints: the specification's state and runc's additions, in runc's order.
type OCIState struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
	// ExitStatus is as a shell has it; only a stopped container has one.
	ExitStatus *int `json:"exitStatus,omitempty"`
}

// specState is the container's state, with the status given, as the specification has it and hooks are told.
func (c *Container) specState(status string) *specs.State {
	s := &specs.State{Version: specs.Version, ID: c.ID, Status: specs.ContainerState(status), Bundle: c.Bundle}
	if c.Spec != nil {
		s.Annotations = c.Spec.Annotations
	}
	if status != Stopped {
		s.Pid = c.Init.PID
	}
	return s
}

// OCIState is the container's state with the status given.
func (c *Container) OCIState(status string) *OCIState {
	s := c.specState(status)
	o := &OCIState{Version: s.Version, ID: s.ID, Pid: s.Pid, Status: s.Status, Bundle: s.Bundle, Rootfs: c.Rootfs, Created: c.Created, Annotations: s.Annotations}
	if status == Stopped && c.Started {
		n := c.ExitStatus().Shell()
		o.ExitStatus = &n
	}
	return o
}

// List loads all containers of root, in order of their IDs.
func List(root string) ([]*Container, error) {
	ds, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var cs []*Container
	for _, d := range ds {
		if !d.IsDir() || !validID(d.Name()) {
			continue
		}
		// One that is gone by now is not there.
		if c, err := Load(root, d.Name()); err == nil {
			cs = append(cs, c)
		}
	}
	slices.SortFunc(cs, func(a, b *Container) int { return strings.Compare(a.ID, b.ID) })
	return cs, err
}
