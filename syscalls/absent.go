package syscalls

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel"
)

// refused makes a row for what Linux has but no container may do: err, as without the capability.
func refused(nr uintptr, name, why string, err unix.Errno) Row {
	return Row{Nr: nr, Name: name, Support: Absent, Note: why, Fn: func(*kernel.Task, kernel.Args) (uintptr, error) { return 0, err }}
}

func init() {
	const (
		gone     = "not in Linux any more, or never was"
		host     = "changes the host"
		uring    = "io_uring: a large surface for little; programs fall back"
		modules  = "no kernel modules"
		security = "as without CONFIG_SECURITY: no security module keeps or tells anything"
	)
	register(
		absent(134, "uselib", gone),
		absent(154, "modify_ldt", "as without CONFIG_MODIFY_LDT_SYSCALL"),
		absent(156, "_sysctl", gone),
		refused(163, "acct", host, unix.EPERM),
		refused(172, "iopl", host, unix.EPERM),
		refused(173, "ioperm", host, unix.EPERM),
		absent(174, "create_module", gone),
		refused(175, "init_module", modules, unix.EPERM),
		refused(176, "delete_module", modules, unix.EPERM),
		absent(177, "get_kernel_syms", gone),
		absent(178, "query_module", gone),
		absent(180, "nfsservctl", gone),
		absent(181, "getpmsg", gone),
		absent(182, "putpmsg", gone),
		absent(183, "afs_syscall", gone),
		absent(184, "tuxcall", gone),
		absent(185, "security", gone),
		absent(205, "set_thread_area", "for 32-bit code"),
		absent(211, "get_thread_area", "for 32-bit code"),
		absent(212, "lookup_dcookie", gone),
		absent(214, "epoll_ctl_old", gone),
		absent(215, "epoll_wait_old", gone),
		absent(236, "vserver", gone),
		refused(246, "kexec_load", host, unix.EPERM),
		absent(298, "perf_event_open", "hardware counters belong to the host"),
		refused(300, "fanotify_init", "watching whole file systems needs the host's CAP_SYS_ADMIN", unix.EPERM),
		refused(301, "fanotify_mark", "see fanotify_init", unix.EBADF),
		refused(313, "finit_module", modules, unix.EPERM),
		refused(320, "kexec_file_load", host, unix.EPERM),
		refused(323, "userfaultfd", "as with vm.unprivileged_userfaultfd = 0", unix.EPERM),
		absent(335, "uretprobe", "entered by the kernel's own trampolines only"),
		absent(336, "uprobe", "entered by the kernel's own trampolines only"),
		absent(425, "io_uring_setup", uring),
		absent(426, "io_uring_enter", uring),
		absent(427, "io_uring_register", uring),
		absent(444, "landlock_create_ruleset", "as without CONFIG_SECURITY_LANDLOCK"),
		absent(445, "landlock_add_rule", "as without CONFIG_SECURITY_LANDLOCK"),
		absent(446, "landlock_restrict_self", "as without CONFIG_SECURITY_LANDLOCK"),
		full(448, "process_mrelease", "fd hex", sysProcessMrelease),
		absent(459, "lsm_get_self_attr", security),
		absent(460, "lsm_set_self_attr", security),
		absent(461, "lsm_list_modules", security),
		absent(470, "listns", "new in Linux 6.19; namespaces are listed in /proc"),
		absent(471, "rseq_slice_yield", "new in Linux 7.0; goes with rseq, which is absent"),
		full(153, "vhangup", "", sysVhangup),
	)
}

// sysProcessMrelease is process_mrelease(2): the memory of a dying process goes with its last thread, so there is nothing to hurry.
func sysProcessMrelease(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if a[1] != 0 {
		return 0, unix.EINVAL
	}
	p, err := pidOfFD(t, a[0].Int(), true)
	if err != nil {
		return 0, err
	}
	o, err := p.Task(t.Kernel())
	if err != nil {
		return 0, err
	}
	if o.MemoryManager() != nil && !o.Killed() {
		return 0, unix.EINVAL
	}
	return 0, nil
}

func sysVhangup(t *kernel.Task, _ kernel.Args) (uintptr, error) {
	if !t.Credentials().HasCap(linux.CAP_SYS_TTY_CONFIG) {
		return 0, unix.EPERM
	}
	if tty := t.ThreadGroup().ControllingTTY(); tty != nil {
		t.Kernel().TTYHangup(tty.Job())
		tty.Hangup()
	}
	return 0, nil
}
