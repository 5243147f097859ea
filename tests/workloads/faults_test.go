package workloads

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// echoServer is A's: what comes by TCP goes back, and so does each datagram.
const echoServer = `
import socket, threading
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("10.77.0.1", 5555)); l.listen(50)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("10.77.0.1", 5556))
def udp():
    while True: d, a = u.recvfrom(65536); u.sendto(d, a)
def one(c):
    try:
        while d := c.recv(65536): c.sendall(d)
    except OSError: pass
    c.close()
threading.Thread(target=udp, daemon=True).start(); print("ready", flush=True)
while True: threading.Thread(target=one, args=(l.accept()[0],), daemon=True).start()`

// echoClient sends its bytes through the echo and compares; datagrams are asked for again until each has come back unspoilt.
const echoClient = `
import socket, os, hashlib, threading, sys
n, datagram = int(sys.argv[1]), int(sys.argv[2])
data = os.urandom(n)
s = socket.create_connection(("10.77.0.1", 5555), 60); s.settimeout(120)
t = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(1))); t.start()
back = b""
while d := s.recv(65536): back += d
t.join(); print("same" if back == data else "NOT the same: %d" % len(back))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(("10.77.0.1", 5556)); u.settimeout(.2)
for i in range(20):
    m = bytes([i]) * datagram
    for tries in range(300):
        u.send(m)
        try:
            while (d := u.recv(65536)) != m: assert len(d) == datagram and d[0] < i and len(set(d)) == 1, ("a datagram was spoilt", i, len(d), sorted((x, d.count(x)) for x in set(d))[:6])
            break
        except TimeoutError: pass
    else: sys.exit("no datagram comes through")
print("datagrams")`

// TestNetFaults: TCP survives what a wire does to frames, and what arrives is what was sent; MTUs from the smallest to a jumbo's.
func TestNetFaults(t *testing.T) {
	need(t, "python3", "ip")
	for _, c := range []struct {
		name      string
		mtu       int
		f         faults
		datagram  int
		alwaysRun bool
	}{
		{"everything", 1500, faults{drop: 15, dup: 15, reorder: 20, corrupt: 10, delay: time.Millisecond, jitter: time.Millisecond}, 4000, true},
		{"loss", 1500, faults{drop: 50}, 1400, false},
		{"delay", 1500, faults{delay: 20 * time.Millisecond, jitter: 10 * time.Millisecond}, 1400, false},
		{"reorder", 1500, faults{reorder: 200}, 4000, false},
		{"duplication", 1500, faults{dup: 300}, 4000, false},
		{"corruption", 1500, faults{corrupt: 50}, 1400, false},
		{"MTU 576", 576, faults{}, 3000, true},
		{"MTU 1280", 1280, faults{}, 3000, false},
		{"MTU 9000", 9000, faults{}, 20000, false},
		{"MTU 9000 with loss", 9000, faults{drop: 10}, 8900, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !c.alwaysRun {
				long(t)
			}
			platforms(t, func(t *testing.T, p string) {
				a, b, br := bridged(t, c.mtu, 1)
				br.faults.Store(&c.f)
				servePython(t, a, echoServer)
				r := command(t, 3*time.Minute, "", "", "ip", "netns", "exec", b, moat, "do", "--platform="+p, "--network=sandbox", "--", "python3", "-c", echoClient, "1000000", fmt.Sprint(c.datagram))
				if r.out != "same\ndatagrams\n" {
					t.Error(r)
				}
				t.Logf("%d frames, %.1f s", br.count.Load(), r.took.Seconds())
			})
		})
	}
}

// besieged is a sandbox's program: it serves port 6666, keeps a connection to A's echo in use, and says how that went when it is told "end".
const besieged = `
import socket, threading, sys, time
l = socket.socket(); l.bind(("", 6666)); l.listen(100)
def serve():
    while True:
        c, _ = l.accept()
        try: c.settimeout(5); c.sendall(c.recv(100))
        except OSError: pass
        c.close()
threading.Thread(target=serve, daemon=True).start()
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("", 6667))
s = socket.create_connection(("10.77.0.1", 5555), 30); s.settimeout(100)
print("up", flush=True)
rounds, stop = 0, False
def end():
    global stop
    sys.stdin.readline(); stop = True
threading.Thread(target=end, daemon=True).start()
while not stop:
    m = b"%d" % rounds * 50; s.sendall(m); back = b""
    while len(back) < len(m): back += s.recv(1000)
    assert back == m; rounds += 1; time.sleep(.001)
print("rounds" if rounds > 1 else "no rounds", flush=True)`

// frames makes hostile frames for B: SYNs of a flood, probes of a port scan, and malformed ones of every kind.
type frames struct {
	r        *rand.Rand
	dst, src [6]byte
}

func (f *frames) packet(proto byte, payload []byte, spoil bool) []byte {
	b := append(append(append([]byte{}, f.dst[:]...), f.src[:]...), 8, 0)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
	copy(ip[12:], []byte{10, 77, 0, byte(3 + f.r.Intn(250))})
	copy(ip[16:], []byte{10, 77, 0, 2})
	if spoil { // the lengths, fragments and options are any
		for range 1 + f.r.Intn(4) {
			ip[f.r.Intn(12)] = byte(f.r.Int())
		}
	}
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	return append(append(b, ip...), payload...)
}

func sum(b []byte) uint16 {
	s := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// tcp is a segment with a good checksum.
func (f *frames) tcp(port uint16, flags byte, options int) []byte {
	seg := make([]byte, 20+4*options)
	f.r.Read(seg)
	binary.BigEndian.PutUint16(seg[2:], port)
	seg[12], seg[13] = byte(5+options)<<4, flags
	b := f.packet(6, seg, false)
	seg = b[34:]
	seg[16], seg[17] = 0, 0
	pseudo := append(append([]byte{}, b[26:34]...), 0, 6, byte(len(seg)>>8), byte(len(seg)))
	binary.BigEndian.PutUint16(seg[16:], ^sum(append(pseudo, seg...)))
	return b
}

func (f *frames) malformed() []byte {
	payload := make([]byte, f.r.Intn(200))
	f.r.Read(payload)
	switch f.r.Intn(5) {
	case 0: // anything at all
		b := append(append([]byte{}, f.dst[:]...), payload...)
		if len(b) < 14 {
			b = append(b, make([]byte, 14)...)
		}
		return b
	case 1: // ARP, or what calls itself IPv6
		b := append(append(append([]byte{}, f.dst[:]...), f.src[:]...), [][]byte{{8, 6}, {0x86, 0xdd}}[f.r.Intn(2)]...)
		if b[12] == 0x86 && len(payload) > 40 {
			payload[0] = 0x60 | payload[0]&0xf
			binary.BigEndian.PutUint16(payload[4:], uint16(len(payload)-40))
			payload[6] = []byte{0, 6, 17, 43, 44, 58, 59, 60}[f.r.Intn(8)]
		}
		return append(b, payload...)
	case 2:
		return f.tcp(6666, byte(f.r.Int()), f.r.Intn(11))
	case 3:
		return f.packet([]byte{1, 2, 6, 17, 41, 47}[f.r.Intn(6)], payload, true)
	default: // fragments that never become whole
		b := f.packet(17, payload, false)
		binary.BigEndian.PutUint16(b[20:], uint16(f.r.Intn(0x4000)))
		binary.BigEndian.PutUint16(b[18:], uint16(f.r.Int()))
		b[24], b[25] = 0, 0
		binary.BigEndian.PutUint16(b[24:], ^sum(b[14:34]))
		return b
	}
}

// TestNetSiege: a link that goes down and comes up, a cut wire, a flood of SYNs, a port scan, and a fuzzer on the link: the sentry stays up with bounded memory,
// an established connection goes on, and new ones are made afterwards.
func TestNetSiege(t *testing.T) {
	need(t, "python3", "ip")
	const bound = 48 << 20 // however many frames come
	scale := 20000
	if os.Getenv("MOAT_LONG") != "" {
		scale = 200000
	}
	platforms(t, func(t *testing.T, p string) {
		a, b, br := bridged(t, 1500, 2)
		servePython(t, a, echoServer)
		c := exec.Command("ip", "netns", "exec", b, moat, "do", "--platform="+p, "--network=sandbox", "--", "python3", "-c", besieged)
		c.Env = environ()
		var errs strings.Builder
		c.Stderr = &errs
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			c.Process.Kill()
			c.Wait()
		}()
		lines := bufio.NewReader(out)
		if l, _ := lines.ReadString('\n'); l != "up\n" {
			t.Fatalf("%q %s", l, errs.String())
		}
		f := &frames{r: rand.New(rand.NewSource(3)), src: [6]byte{2, 9, 9, 9, 9, 9}}
		ip := func(args string) string {
			r := command(t, time.Minute, "", "", strings.Fields("ip -n "+b+" "+args)...)
			if r.code != 0 {
				t.Fatal(r)
			}
			return r.out
		}
		_, mac, _ := strings.Cut(ip("-o link show eth0"), "link/ether ")
		if hw, err := net.ParseMAC(strings.Fields(mac)[0]); err != nil || copy(f.dst[:], hw) != 6 {
			t.Fatal(mac, err)
		}
		before := measure(c.Process.Pid)
		ip("link set eth0 down")
		time.Sleep(time.Second)
		ip("link set eth0 up")
		br.cut.Store(true)
		time.Sleep(2 * time.Second)
		br.cut.Store(false)
		early := before
		for i := range scale {
			if i == scale/4 {
				early = measure(c.Process.Pid)
			}
			br.inject(f.tcp(6666, 2, 0))
			br.inject(f.tcp(uint16(i), []byte{2, 0, 1, 0x29, 16}[i%5], 0))
			br.inject(f.malformed())
			if i%100 == 99 {
				time.Sleep(time.Millisecond) // the established connection, too, needs its share of the link
			}
		}
		after := measure(c.Process.Pid)
		t.Logf("before: %v; after %d frames: %v; after %d: %v", before, 3*scale/4, early, 3*scale, after)
		if after.anon > before.anon+bound || after.anon > early.anon+bound/2 || after.fds > before.fds {
			t.Error("the sandbox has grown")
		}
		r := command(t, time.Minute, "", "", "ip", "netns", "exec", a, "python3", "-c", `
import socket, time
for i in range(60):
    try:
        s = socket.create_connection(("10.77.0.2", 6666), 5); s.sendall(b"hi"); assert s.recv(10) == b"hi"; print("new"); break
    except OSError: time.sleep(.5)`)
		if r.out != "new\n" {
			t.Errorf("no new connection: %v", r)
		}
		io.WriteString(in, "end\n")
		if l, _ := lines.ReadString('\n'); l != "rounds\n" {
			t.Errorf("the established connection: %q %s", l, errs.String())
		}
		in.Close()
		if err := c.Wait(); err != nil {
			t.Errorf("%v: %s", err, errs.String())
		}
	})
}
