package inet

import (
	"encoding/binary"
	"reflect"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"moat/sentry/kernel"
	"moat/sentry/kernel/auth"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// rootTask is a task that has root's credentials and nothing else.
func rootTask() *kernel.Task {
	t := &kernel.Task{}
	creds := reflect.ValueOf(t).Elem().FieldByName("creds").Addr().UnsafePointer()
	(*atomic.Pointer[auth.Credentials])(creds).Store(auth.NewRoot(auth.NewRootNamespace()))
	return t
}

// testSocks are sockets of each kind.
func testSocks(tb testing.TB, st *Stack) (socks []*sock) {
	task := rootTask()
	for _, family := range []int32{unix.AF_INET, unix.AF_INET6} {
		for _, p := range protocols {
			if family == unix.AF_INET && p.protocol == unix.IPPROTO_ICMPV6 || family == unix.AF_INET6 && !p.v6 {
				continue
			}
			socks = append(socks, &sock{st: st, ns: &kernel.NetNamespace{}, Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}})
			if _, err := socks[len(socks)-1].init(task, family, p.typ, p.protocol, p.trans); err != nil {
				tb.Fatal(err)
			}
		}
		socks = append(socks, &sock{st: st, ns: &kernel.NetNamespace{}, Waitable: vfs.Waitable{Waiters: &waiter.Queue{}}})
		proto := map[int32]int32{unix.AF_INET: unix.IPPROTO_ICMP, unix.AF_INET6: unix.IPPROTO_ICMPV6}[family]
		if _, err := socks[len(socks)-1].init(task, family, unix.SOCK_RAW, proto, tcpip.TransportProtocolNumber(proto)); err != nil {
			tb.Fatal(err)
		}
	}
	return socks
}

// FuzzOption: no value of any option makes a socket of any kind panic, nor what is read back afterwards large.
func FuzzOption(f *testing.F) {
	for _, level := range []int32{linux.SOL_SOCKET, linux.SOL_IP, linux.SOL_IPV6, linux.SOL_TCP, linux.SOL_UDP, linux.SOL_ICMPV6, unix.SOL_RAW, linux.SOL_PACKET} {
		for name := range int32(80) {
			f.Add(level, name, []byte{1, 0, 0, 0})
		}
	}
	mreq := append([]byte{224, 0, 0, 9, 127, 0, 0, 1}, make([]byte, 12)...)
	for _, name := range []int32{linux.IP_ADD_MEMBERSHIP, linux.IP_DROP_MEMBERSHIP, linux.IP_MULTICAST_IF, linux.MCAST_JOIN_GROUP} {
		f.Add(int32(linux.SOL_IP), name, mreq)
		f.Add(int32(linux.SOL_IPV6), name, append([]byte{0: 0xff, 1: 2, 15: 9}, 1, 0, 0, 0))
	}
	f.Add(int32(linux.SOL_SOCKET), int32(linux.SO_BINDTODEVICE), []byte("lo\x00"))
	f.Add(int32(linux.SOL_SOCKET), int32(linux.SO_LINGER), []byte{1, 0, 0, 0, 255, 255, 255, 255})
	f.Add(int32(linux.SOL_TCP), int32(linux.TCP_CONGESTION), []byte("reno"))
	st := New(Config{LoopbackUp: true})
	socks, task := testSocks(f, st), rootTask()
	socks = append(socks, &sock{st: st, ns: socks[0].ns, Waitable: socks[0].Waitable})
	f.Fuzz(func(t *testing.T, level, name int32, val []byte) {
		if len(val) > 1<<12 {
			return
		}
		for i, s := range socks {
			get, set := s.GetOption, s.SetOption
			if i == len(socks)-1 { // the options of a packet socket itself
				if level != linux.SOL_PACKET {
					continue
				}
				p := &packetSock{sock: s}
				get, set = p.GetOption, p.SetOption
			}
			_ = set(task, level, name, val)
			for _, size := range []int{0, 1, len(val), 1 << 20} {
				if b, err := get(task, level, name, size); err == nil && len(b) > 1<<13 {
					t.Fatalf("%d bytes", len(b))
				}
			}
		}
	})
}

// FuzzIoctl: nothing that netdevice(7) is asked makes it panic, nor write where it should not.
func FuzzIoctl(f *testing.F) {
	for req := uint32(unix.SIOCADDRT); req <= unix.SIOCDEVPRIVATE; req++ {
		f.Add(req, uint16(0), append([]byte("lo"), make([]byte, ifreqSize)...))
	}
	f.Add(uint32(unix.SIOCGIFCONF), uint16(0), binary.LittleEndian.AppendUint64([]byte{80, 0, 0, 0, 0, 0, 0, 0}, 16))
	ns := &kernel.NetNamespace{Stack: New(Config{LoopbackUp: true})}
	f.Fuzz(func(t *testing.T, req uint32, at uint16, mem []byte) {
		before := len(mem)
		io := &usermem.BytesIO{B: mem}
		if _, err := Ioctl(vfs.Background(), ns, io, req, uintptr(at)); err != nil {
			if _, ok := err.(unix.Errno); !ok {
				t.Fatal(err)
			}
		}
		if len(io.B) != before {
			t.Fatal("memory grew")
		}
	})
}
