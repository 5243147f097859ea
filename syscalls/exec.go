package syscalls

import (
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/kernel"
	"moat/sentry/loader"
	"moat/sentry/vfs"
)

func init() {
	register(
		full(59, "execve", "path argv envp", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, execveat(t, unix.AT_FDCWD, a[0].Pointer(), a[1].Pointer(), a[2].Pointer(), 0)
		}),
		full(322, "execveat", "dirfd path argv envp atflags", func(t *kernel.Task, a kernel.Args) (uintptr, error) {
			return 0, execveat(t, a[0].Int(), a[1].Pointer(), a[2].Pointer(), a[3].Pointer(), a[4].Uint())
		}),
	)
}

// execCheck is AT_EXECVE_CHECK: only say whether the program could be executed.
const execCheck = 0x10000

func execveat(t *kernel.Task, dirfd int32, pathAddr, argv, envv hostarch.Addr, flags uint32) error {
	if flags&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|execCheck) != 0 {
		return unix.EINVAL
	}
	path, err := t.CopyInPath(pathAddr)
	if err != nil {
		return err
	}
	if path == "" && flags&unix.AT_EMPTY_PATH == 0 {
		return unix.ENOENT
	}
	budget := loader.NewBudget(t.ThreadGroup().Limit(linux.RLIMIT_STACK).Cur)
	if err := budget.Add(path); err != nil {
		return err
	}
	m := t.MemoryManager()
	args := &kernel.ExecArgs{Filename: path}
	if args.Argv, err = budget.Strings(m, argv); err != nil {
		return err
	}
	if args.Envv, err = budget.Strings(m, envv); err != nil {
		return err
	}
	if err := openProgram(t, args, dirfd, path, flags); err != nil {
		return err
	}
	if flags&execCheck != 0 {
		args.File.DecRef()
		return nil
	}
	return t.Exec(args)
}

// openProgram opens the program and finds the name that it and a script's interpreter know it by (fs/exec.c alloc_bprm).
func openProgram(t *kernel.Task, args *kernel.ExecArgs, dirfd int32, path string, flags uint32) error {
	start := t.Cwd()
	if dirfd != unix.AT_FDCWD && (path == "" || path[0] != '/') {
		f, cloexec := t.FDTable().GetFlags(dirfd)
		if f == nil {
			return unix.EBADF
		}
		defer f.DecRef()
		start = f.Path()
		args.Filename = "/dev/fd/" + strconv.Itoa(int(dirfd))
		if path != "" {
			args.Filename += "/" + path
		}
		args.Inaccessible = cloexec
	}
	follow := uint32(vfs.Follow | vfs.WillOpen)
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		follow = vfs.WillOpen
	}
	var p vfs.Path
	if path == "" {
		p = start.IncRef()
	} else {
		var err error
		if p, err = vfs.Resolve(t, start, path, follow); err != nil {
			return err
		}
	}
	defer p.DecRef()
	if p.Inode().Mode()&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	var err error
	args.File, err = vfs.OpenExec(t, p)
	return err
}
