package syscalls

import (
	"crypto/rand"

	"moat/sentry/kernel"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

func init() {
	register(
		full(63, "uname", "ptr", sysUname),
		full(170, "sethostname", "str size", sysSethostname),
		full(171, "setdomainname", "str size", sysSetdomainname),
		full(99, "sysinfo", "ptr", sysSysinfo),
		full(318, "getrandom", "ptr size hex", sysGetrandom),
		partial(103, "syslog", "int ptr int", "the ring buffer has moat's boot message only", sysSyslog),
		full(169, "reboot", "hex hex hex ptr", sysReboot),
	)
}

func sysUname(t *kernel.Task, a kernel.Args) (uintptr, error) {
	host, domain := t.UTS().Names()
	rel := kernel.Release
	if t.Personality()&0x0020000 != 0 { // UNAME26
		rel = "2.6.72"
	}
	var b [6 * 65]byte
	for i, s := range [...]string{"Linux", host, rel, kernel.Version, "x86_64", domain} {
		copy(b[65*i:65*i+64], s)
	}
	_, err := t.CopyOut(a[0].Pointer(), b[:])
	return 0, err
}

// utsName copies in a new name of at most 64 bytes: EPERM, EINVAL, EFAULT.
func utsName(t *kernel.Task, a kernel.Args) (string, error) {
	if !t.Credentials().HasCapIn(linux.CAP_SYS_ADMIN, t.UTS().UserNamespace()) {
		return "", unix.EPERM
	}
	n := a[1].Int()
	if n < 0 || n > 64 {
		return "", unix.EINVAL
	}
	b := make([]byte, n)
	_, err := t.CopyIn(a[0].Pointer(), b)
	return unix.ByteSliceToString(b), err
}

func sysSethostname(t *kernel.Task, a kernel.Args) (uintptr, error) {
	s, err := utsName(t, a)
	if err == nil {
		t.UTS().SetHost(s)
	}
	return 0, err
}

func sysSetdomainname(t *kernel.Task, a kernel.Args) (uintptr, error) {
	s, err := utsName(t, a)
	if err == nil {
		t.UTS().SetDomain(s)
	}
	return 0, err
}

func sysSysinfo(t *kernel.Task, a kernel.Args) (uintptr, error) {
	k := t.Kernel()
	mem := k.MemoryInfo()
	_, procs := k.NumRunning()
	info := linux.Sysinfo{Uptime: int64((k.Uptime() + 999999999) / 1e9), TotalRAM: mem.Total, FreeRAM: mem.Free,
		Procs: uint16(min(procs, 65535)), Unit: 1}
	for i, l := range k.LoadAverage() {
		info.Loads[i] = uint64(l * 65536)
	}
	var b [112]byte // with the structure's padding
	info.MarshalBytes(b[:])
	_, err := t.CopyOut(a[0].Pointer(), b[:])
	return 0, err
}

func sysGetrandom(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const insecure = 4
	flags := a[2].Uint()
	if flags&^(unix.GRND_NONBLOCK|unix.GRND_RANDOM|insecure) != 0 || flags&(insecure|unix.GRND_RANDOM) == insecure|unix.GRND_RANDOM {
		return 0, unix.EINVAL
	}
	n := min(a[1].Uint64(), 1<<31-1)
	var small [256]byte
	buf := small[:]
	if n > uint64(len(small)) {
		buf = make([]byte, min(n, 64<<10))
	}
	done := uint64(0)
	for done < n {
		b := buf[:min(uint64(len(buf)), n-done)]
		rand.Read(b)
		c, err := t.CopyOut(a[0].Pointer()+hostarch.Addr(done), b)
		done += uint64(c)
		if err != nil {
			if done > 0 {
				break
			}
			return 0, err
		}
		if t.Interrupted() {
			break
		}
	}
	return uintptr(done), nil
}

const bootMessage = "<5>[    0.000000] moat: container kernel started\n"

func sysSyslog(t *kernel.Task, a kernel.Args) (uintptr, error) {
	const (
		readAll    = 3
		readClear  = 4
		sizeUnread = 9
		sizeBuffer = 10
	)
	op := a[0].Int()
	if op != readAll && op != sizeBuffer {
		if c := t.Credentials(); !c.HasCapIn(linux.CAP_SYSLOG, t.Kernel().RootUserNamespace()) {
			return 0, unix.EPERM
		}
	}
	switch op {
	case 0, 1, 5, 6, 7:
		return 0, nil
	case 2:
		if a[1] == 0 || a[2].Int() <= 0 {
			if a[1] != 0 && a[2] == 0 {
				return 0, nil
			}
			return 0, unix.EINVAL
		}
		// All has been read: wait as a reader of an idle buffer does.
		return 0, t.Block(nil)
	case readAll, readClear:
		n := a[2].Int()
		if a[1] == 0 || n < 0 {
			return 0, unix.EINVAL
		}
		s := bootMessage[:min(len(bootMessage), int(n))]
		_, err := t.CopyOut(a[1].Pointer(), []byte(s))
		return uintptr(len(s)), err
	case 8:
		if l := a[2].Int(); l < 1 || l > 8 {
			return 0, unix.EINVAL
		}
		return 0, nil
	case sizeUnread:
		return 0, nil
	case sizeBuffer:
		return 1 << 17, nil
	}
	return 0, unix.EINVAL
}

func sysReboot(t *kernel.Task, a kernel.Args) (uintptr, error) {
	if !t.Credentials().HasCapIn(linux.CAP_SYS_BOOT, t.PIDNamespace().UserNamespace()) {
		return 0, unix.EPERM
	}
	if a[0].Uint() != 0xfee1dead {
		return 0, unix.EINVAL
	}
	switch a[1].Uint() {
	case 672274793, 85072278, 369367448, 537993216:
	default:
		return 0, unix.EINVAL
	}
	sig := linux.SIGINT
	switch a[2].Uint() {
	case 0x01234567: // LINUX_REBOOT_CMD_RESTART
		sig = linux.SIGHUP
	case 0xcdef0123, 0x4321fedc: // HALT, POWER_OFF
	default: // Ctrl-Alt-Del on and off too
		return 0, unix.EINVAL
	}
	// reboot_pid_ns: the namespace's init is killed, and its parent sees the signal as its death.
	t.Kernel().RebootNamespace(t.PIDNamespace(), sig)
	return 0, nil
}
