package workloads

import (
	"fmt"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// faults are what a bridge does to frames: each in a thousand, and a delay with a jitter (which reorders, too).
type faults struct {
	drop, dup, reorder, corrupt int
	delay, jitter               time.Duration
}

// bridge joins two interfaces by packet sockets, and spoils what passes: the kernels of many machines have no netem.
type bridge struct {
	fds    [2]int
	faults atomic.Pointer[faults]
	// cut: nothing passes.
	cut   atomic.Bool
	count atomic.Int64
	done  atomic.Bool
	wg    sync.WaitGroup
}

// bridged is wire with a bridge in the middle, in a third namespace. The frames are whole and have checksums, as on a real wire.
func bridged(t *testing.T, mtu int, seed int64) (nsA, nsB string, br *bridge) {
	t.Helper()
	need(t, "ip")
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	id := fmt.Sprint(os.Getpid())
	a, b, m := "moatA"+id, "moatB"+id, "moatM"+id
	t.Cleanup(func() {
		for _, n := range []string{a, b, m} {
			exec.Command("ip", "netns", "del", n).Run()
		}
	})
	script := fmt.Sprintf(`ip netns add %[3]s
		add() { # namespace, name of the bridge's end, address' last part
			ip netns add $1; ip -n $1 link set lo up
			ip -n %[3]s link add $2 mtu %[4]d type veth peer name eth0 mtu %[4]d netns $1
			ip -n %[3]s link set $2 up promisc on
			ip -n $1 addr add 10.77.0.$3/24 dev eth0
			[ %[4]d -lt 1280 ] || ip -n $1 addr add fd77::$3/64 dev eth0 nodad
			ip -n $1 link set eth0 up
		}
		add %[1]s pA 1; add %[2]s pB 2`, a, b, m, mtu)
	if r := command(t, time.Minute, "", "", "bash", "-ec", script); r.code != 0 {
		t.Fatal(r)
	}
	br = &bridge{}
	br.faults.Store(&faults{})
	for i, n := range []string{a, b} {
		inNetns(t, n, func() error { return noOffload("eth0") })
		inNetns(t, m, func() (err error) {
			br.fds[i], err = rawSocket([]string{"pA", "pB"}[i])
			return err
		})
	}
	for i := range 2 {
		br.wg.Add(1)
		go br.carry(br.fds[i], br.fds[1-i], rand.New(rand.NewSource(seed+int64(i))))
	}
	t.Cleanup(func() {
		br.done.Store(true)
		br.wg.Wait()
		unix.Close(br.fds[0])
		unix.Close(br.fds[1])
	})
	return a, b, br
}

// inNetns calls f on a thread in a network namespace, which is not used again.
func inNetns(t *testing.T, name string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + name)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// noOffload has an interface make its checksums and segments itself.
func noOffload(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{0x17, 0x1f, 0x24, 0x2c} { // ETHTOOL_STXCSUM, STSO, SGSO, SGRO
		v := struct{ cmd, data uint32 }{cmd, 0}
		var r struct {
			name [16]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(r.name[:], name)
		r.data = unsafe.Pointer(&v)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); e != 0 {
			return fmt.Errorf("ethtool %#x: %w", cmd, e)
		}
	}
	return nil
}

func rawSocket(name string) (int, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return -1, err
	}
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000})
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8, Ifindex: i.Index})
}

// carry passes frames from one side to the other.
func (br *bridge) carry(from, to int, r *rand.Rand) {
	defer br.wg.Done()
	b := make([]byte, 70000)
	var held []byte
	for !br.done.Load() {
		n, err := unix.Read(from, b)
		if err != nil {
			continue
		}
		f := br.faults.Load()
		odds := func(permille int) bool { return r.Intn(1000) < permille }
		if br.cut.Load() || odds(f.drop) {
			continue
		}
		br.count.Add(1)
		frame := append([]byte(nil), b[:n]...)
		if odds(f.corrupt) && n > 14 {
			frame[14+r.Intn(n-14)] ^= 1 << r.Intn(8)
		}
		if held == nil && odds(f.reorder) {
			held = frame // until the next has passed
			continue
		}
		send := func(frame []byte) {
			if f.delay == 0 {
				unix.Write(to, frame)
				return
			}
			wait := f.delay
			if f.jitter > 0 {
				wait += time.Duration(r.Int63n(int64(f.jitter)))
			}
			br.wg.Add(1)
			time.AfterFunc(wait, func() {
				defer br.wg.Done()
				unix.Write(to, frame)
			})
		}
		if send(frame); odds(f.dup) {
			send(frame)
		}
		if held != nil {
			send(held)
			held = nil
		}
	}
}

// inject sends a frame to B.
func (br *bridge) inject(frame []byte) { unix.Write(br.fds[1], frame) }
