package workloads

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// servePython runs a Python program in namespace ns until the end of the test. It is up when this returns: when it has said so in 6 bytes.
func servePython(t *testing.T, ns, program string) {
	t.Helper()
	c := exec.Command("ip", "netns", "exec", ns, "python3", "-c", program)
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	io.ReadFull(out, make([]byte, 6))
}

// wire makes two network namespaces with a veth between them, A (10.77.0.1, fd77::1) and B (.2, ::2), and returns their names.
func wire(t *testing.T, mtu int) (a, b string) {
	t.Helper()
	need(t, "ip", "ping")
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	id := fmt.Sprint(os.Getpid())
	a, b = "moatA"+id, "moatB"+id
	t.Cleanup(func() {
		exec.Command("ip", "netns", "del", a).Run()
		exec.Command("ip", "netns", "del", b).Run()
	})
	text := strings.NewReplacer("@A", a, "@B", b, "@V", "mv"+id, "@MTU", fmt.Sprint(mtu)).Replace(`
		ip netns add @A; ip netns add @B
		ip link add @Va netns @A type veth peer name @Vb netns @B
		ip -n @A link set @Va name eth0; ip -n @B link set @Vb name eth0
		for n in @A @B; do ip -n $n link set lo up; ip -n $n link set eth0 mtu @MTU; done
		ip -n @A addr add 10.77.0.1/24 dev eth0; ip -n @B addr add 10.77.0.2/24 dev eth0
		ip -n @A addr add fd77::1/64 dev eth0 nodad; ip -n @B addr add fd77::2/64 dev eth0 nodad
		for n in @A @B; do ip -n $n link set eth0 up; done
		ip -n @B route add default via 10.77.0.1`)
	if r := command(t, time.Minute, "", "", "bash", "-ec", text); r.code != 0 {
		t.Fatal(r)
	}
	return a, b
}

// peerScript answers in namespace A; insideScript runs in the sandbox, in B.
const (
	peerScript = `
import socket, threading, time
def tcp():
    l = socket.socket(); l.bind(("10.77.0.1", 5555)); l.listen(1); c, _ = l.accept()
    n = 0
    while d := c.recv(65536): n += len(d)
    c.sendall(b"z" * n); c.close()
def udp():
    u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("fd77::1", 5556)); d, a = u.recvfrom(65536); u.sendto(d, a)
ts = [threading.Thread(target=f, daemon=True) for f in (tcp, udp)]
for t in ts: t.start()
print("ready", flush=True)
for t in ts: t.join()
while True:
    try:
        s = socket.create_connection(("10.77.0.2", 6666), 1); s.sendall(b"hi"); break
    except OSError: time.sleep(.1)`
	insideScript = `
import socket, subprocess
for a in ("10.77.0.1", "fd77::1"):
    print(a, subprocess.run(["ping", "-c1", "-W9", a], stdout=subprocess.DEVNULL).returncode)
s = socket.create_connection(("10.77.0.1", 5555)); s.sendall(b"x" * 3000000); s.shutdown(1)
n = 0
while d := s.recv(65536): n += len(d)
print("tcp", n)
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.sendto(b"y" * 9000, ("fd77::1", 5556)); print("udp", len(u.recv(20000)))
l = socket.socket(); l.bind(("", 6666)); l.listen(1); c, a = l.accept(); print("from", a[0], c.recv(10))`
	insideWants = "10.77.0.1 0\nfd77::1 0\ntcp 3000000\nudp 9000\nfrom 10.77.0.1 b'hi'\n"
)

// TestSandboxNetwork: ping, TCP both ways and fragmented UDP over a veth, with frames small and large, and one that loses and corrupts; the namespace has its
// addresses back afterwards.
func TestSandboxNetwork(t *testing.T) {
	need(t, "python3", "tc")
	for _, c := range []struct {
		name  string
		mtu   int
		fault string
	}{{"plain", 1500, ""}, {"jumbo", 9000, ""}, {"small", 1280, ""}, {"faults", 1500, "delay 2ms 1ms loss 2% duplicate 1% corrupt 1% reorder 5%"}} {
		t.Run(c.name, func(t *testing.T) {
			if c.fault != "" {
				long(t)
			}
			platforms(t, func(t *testing.T, p string) {
				a, b := wire(t, c.mtu)
				if c.fault != "" {
					for _, n := range []string{a, b} {
						f := append([]string{"ip", "netns", "exec", n, "tc", "qdisc", "add", "dev", "eth0", "root", "netem"}, strings.Fields(c.fault)...)
						if r := command(t, time.Minute, "", "", f...); r.code != 0 {
							t.Skip(r) // no netem in this kernel
						}
					}
				}
				servePython(t, a, peerScript)
				r := command(t, 2*time.Minute, "", "", "ip", "netns", "exec", b, moat, "do", "--platform="+p, "--network=sandbox", "--", "python3", "-c", insideScript)
				if want := insideWants; r.out != want && c.fault == "" || !strings.Contains(r.out, "tcp 3000000") {
					t.Errorf("want %s\n%v", want, r)
				}
				if r := command(t, time.Minute, "", "", "ip", "-n", b, "addr"); !strings.Contains(r.out, "10.77.0.2/24") || !strings.Contains(r.out, "fd77::2/64") {
					t.Errorf("the namespace did not get its addresses back: %v", r)
				}
			})
		})
	}
}

// TestNetworkFlag: the host's own namespace is not taken.
func TestNetworkFlag(t *testing.T) {
	oneLine(t, command(t, time.Minute, "", "", moat, "do", "--network=lan", "--", "true"), 125, "--network", "lan", "sandbox")
	own, _ := os.Readlink("/proc/self/ns/net")
	if first, _ := os.Readlink("/proc/1/ns/net"); first == own {
		oneLine(t, command(t, time.Minute, "", "", moat, "do", "--network=sandbox", "--", "true"), 125, "--network sandbox", "host's network namespace")
	}
}

// TestNetTools: ip, ss and /proc/net tell of interfaces and sockets, and of those of a new namespace.
func TestNetTools(t *testing.T) {
	need(t, "ip", "ss", "python3", "unshare")
	checks(t, time.Minute, `set -e
		ip -4 -o addr show | grep -q 'lo *inet 127.0.0.1/8 scope host'
		ip -6 -o addr show | grep -q 'lo *inet6 ::1/128'
		ip link show lo | grep -q 'LOOPBACK,UP,LOWER_UP.*mtu 65536'
		! ip route get 192.0.2.1
		ip addr add 10.9.8.7/24 dev lo; ip -4 addr show lo | grep -q 10.9.8.7/24; ip addr del 10.9.8.7/24 dev lo; ! ip addr del 10.9.8.7/24 dev lo
		[ "$(cat /sys/class/net/lo/mtu) $(cat /sys/class/net/lo/operstate)" = "65536 unknown" ]
		python3 -c '
import os, socket, subprocess
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(); p = l.getsockname()[1]
c = socket.create_connection(("127.0.0.1", p)); a, _ = l.accept()
out = subprocess.check_output(["ss", "-Htan"], text=True)
assert "LISTEN" in out and out.count("ESTAB") == 2, out
ino = os.readlink("/proc/self/fd/%d" % l.fileno())[8:-1]
line = [x for x in open("/proc/net/tcp") if x.split()[1] == "0100007F:%04X" % p and x.split()[3] == "0A"][0]
assert line.split()[9] == ino, (line, ino)
assert socket.if_nameindex() == [(1, "lo")] and socket.if_nametoindex("lo") == 1 and socket.if_indextoname(1) == "lo"
k = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800)); k.bind(("lo", 0))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0)); u.sendto(b"packet", u.getsockname())
d, a = k.recvfrom(2000); assert d[12:15] == b"\x08\x00\x45" and d[-6:] == b"packet" and a[:2] == ("lo", 0x800), (d, a)
assert [x for x in open("/proc/net/dev") if x.strip().startswith("lo:") and int(x.split()[1]) > 0]'
		unshare -n sh -ec '! ping -c1 127.0.0.1 2>/dev/null; ip link set lo up; ping -c1 -W9 127.0.0.1 >/dev/null; [ -z "$(ss -Htan)" ]'
		echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
		setpriv --reuid 1000 --clear-groups python3 -c 'import socket; socket.socket().bind(("", 80))'
		echo fine`, "fine")
}

// TestDatagramQueue: a socket that nobody reads holds no more datagrams than its buffer has room for, however small they are, and takes new ones once it has
// been read.
func TestDatagramQueue(t *testing.T) {
	need(t, "python3")
	checks(t, time.Minute, `python3 -c '
import socket
def drain(r):
    n = 0
    try:
        while True: r.recv(10, socket.MSG_DONTWAIT); n += 1
    except BlockingIOError: return n
for size in 0, 1:
    r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); r.bind(("127.0.0.1", 0))
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(r.getsockname())
    for _ in range(20000): s.send(b"x" * size)
    n = drain(r)
    assert 250 <= n <= 2500, (size, n)
    for _ in range(100): s.send(b"y" * size)
    assert drain(r) == 100
print("fine")'`, "fine")
}
