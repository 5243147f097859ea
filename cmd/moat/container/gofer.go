package container

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"moat/fsgofer"
)

// The gofer's descriptors, by number.
const (
	goferConnFD   = 3 // the sentry's requests
	goferConfigFD = 4 // goferConfig, up to end of file
	goferReportFD = 5 // closed without a word when all is well, else one line
)

// goferMount is one tree of the host that the gofer is to serve.
type goferMount struct {
	ID                          uint32
	Source                      string
	ReadOnly, Shared, Recursive bool
	// Follows: what is mounted below the source on the host later, and unmounted, is here too.
	Follows bool
	// Optional: nobody asked for it by name; it was there when the host's mounts were listed.
	Optional bool
}

// mountPoint is a directory or an empty file that must be there below the root for something to be mounted on it.
type mountPoint struct {
	Path string
	Dir  bool
}

type goferConfig struct {
	Mounts []goferMount
	Points []mountPoint
	Unsafe bool
}

// Gofer is the gofer's process. It is in a mount, PID, network, IPC and UTS namespace of its own.
func Gofer() error {
	for fd := goferConnFD; fd <= goferReportFD; fd++ {
		unix.CloseOnExec(fd)
	}
	trim := trimmer()
	report := os.NewFile(goferReportFD, "report")
	opts, err := prepareGofer()
	if err != nil {
		fmt.Fprint(report, err)
		return err
	}
	report.Close()
	opts.LastCall = trim
	return fsgofer.Serve(opts)
}

func prepareGofer() (o fsgofer.Options, err error) {
	if err := dieWithParent(); err != nil {
		return o, err
	}
	f := os.NewFile(goferConfigFD, "config")
	b, err := io.ReadAll(f)
	f.Close()
	if err != nil {
		return o, fmt.Errorf("gofer: read its configuration: %w", err)
	}
	var c goferConfig
	if err := json.Unmarshal(b, &c); err != nil {
		return o, fmt.Errorf("gofer: its configuration: %w", err)
	}
	o = fsgofer.Options{Conn: goferConnFD, ProcFD: -1, NoSeccomp: c.Unsafe}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return o, fmt.Errorf("gofer: keep mounts to itself: %w", err)
	}
	if o.ProcFD, err = procFD(); err != nil {
		return o, err
	}
	var masked, writable, devices bool
	for _, m := range c.Mounts {
		fd, err := cloneTree(m.Source, m.Recursive)
		if err == unix.EINVAL && !m.Recursive {
			// In a user namespace the mounts below come along. What they hide must stay hidden.
			if !masked {
				maskPseudo()
				masked = true
			}
			fd, err = cloneTree(m.Source, true)
		}
		if err == unix.ENOENT && m.Optional {
			fd, err = emptyTree()
		}
		if err != nil {
			return o, fmt.Errorf("cannot bind %s: %w", m.Source, err)
		}
		if m.ID == 0 {
			for _, p := range c.Points {
				// A root that is read-only on the host too has what it has.
				if err := makePoint(fd, p); err != nil && err != unix.EROFS {
					return o, fmt.Errorf("cannot make %s to mount on: %w", p.Path, err)
				}
			}
		}
		if err := limitTree(fd, m); err != nil {
			return o, fmt.Errorf("cannot bind %s: %w", m.Source, err)
		}
		writable = writable || !m.ReadOnly
		devices = devices || !m.ReadOnly && !m.Shared
		o.Mounts = append(o.Mounts, fsgofer.Mount{ID: m.ID, FD: fd, ReadOnly: m.ReadOnly, Shared: m.Shared})
	}
	o.SlowClock = SlowClock()
	if err := EmptyRoot(); err != nil {
		return o, fmt.Errorf("gofer: %w", err)
	}
	for i, m := range c.Mounts {
		if m.Follows { // the news do not reach a detached mount; what is mounted over the root hides nothing from who is in it already
			if err := unix.MoveMount(o.Mounts[i].FD, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return o, fmt.Errorf("gofer: attach %s: %w", m.Source, err)
			}
		}
	}
	if err := limitCapabilities(goferCapabilities(writable, devices)...); err != nil {
		return o, fmt.Errorf("gofer: %w", err)
	}
	return o, nil
}

// SlowClock reports whether the vDSO asks the kernel for the time: the clock is none of those that it can read by itself. If in doubt it is.
func SlowClock() bool {
	b, _ := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	switch strings.TrimSpace(string(b)) {
	case "tsc", "kvm-clock", "hyperv_clocksource_tsc_page":
		return false
	}
	return true
}

// goferCapabilities are those that the gofer keeps. Who may do what is the sentry's to decide, as the container's users are not the host's; what the
// gofer may do at all is a matter of its mounts.
func goferCapabilities(writable, devices bool) []uintptr {
	if !writable {
		// Reads files and searches directories whatever their mode and owner.
		return []uintptr{unix.CAP_DAC_READ_SEARCH}
	}
	keep := []uintptr{
		unix.CAP_DAC_OVERRIDE, // the same, and writes
		unix.CAP_CHOWN,        // gives new files their owner in the container; chown(2)
		unix.CAP_FOWNER,       // chmod(2), utimensat(2), O_NOATIME and sticky directories of any owner
		unix.CAP_FSETID,       // keeps set-group-ID on files of a group that it is not in
	}
	if devices {
		// mknod(2) of devices, which a container may make in a tree of its own; nobody can open them there (nodev).
		keep = append(keep, unix.CAP_MKNOD)
	}
	return keep
}

// cloneTree returns a detached copy of the mount at path.
func cloneTree(path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(unix.AT_FDCWD, path, flags)
}

// emptyTree returns a detached file system without files, in the place of a mount that has gone.
func emptyTree() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
}

// limitTree takes from a detached mount what the gofer has no use for: devices, set-user-ID bits, writing, and news of the host's mounts. What they bring has
// not these limits; but the gofer opens no devices, starts no programs, and keeps to ReadOnly itself.
func limitTree(fd int, m goferMount) error {
	set := uint64(unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID)
	if m.ReadOnly {
		set |= unix.MOUNT_ATTR_RDONLY
	}
	kind := uint64(unix.MS_PRIVATE)
	if m.Follows {
		kind = unix.MS_SLAVE
	}
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: set, Propagation: kind})
}

// procFD is this process's /proc/self/fd in a proc mount that shows nothing but this process's PID namespace. Where the host does not
// allow such a mount (a user namespace in a container) it is the host's.
func procFD() (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err == nil {
		defer unix.Close(fs)
		if err = unix.FsconfigCreate(fs); err == nil {
			var m int
			if m, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC); err == nil {
				defer unix.Close(m)
				return unix.Openat(m, "self/fd", flags, 0)
			}
		}
	}
	fd, err := unix.Open("/proc/self/fd", flags, 0)
	if err != nil {
		return -1, fmt.Errorf("gofer: open /proc/self/fd: %w (is /proc mounted?)", err)
	}
	return fd, nil
}

// maskPseudo covers the host kernel's own file systems with empty ones.
func maskPseudo() {
	ms, err := hostMounts()
	if err != nil {
		return
	}
	for _, m := range ms {
		if m.pseudo() && m.point != "/" {
			// A file, or gone already below another.
			if err := unix.Mount("none", m.point, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=4k,mode=755"); err == unix.ENOTDIR {
				unix.Mount("/dev/null", m.point, "", unix.MS_BIND, "")
			}
		}
	}
}
