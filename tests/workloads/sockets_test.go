package workloads

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// containers makes network namespaces one after the other, as many as it is told, each with connections, datagrams and sockets of every family that are used and closed.
const containers = `
import socket, ctypes, fcntl, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def container():
    if libc.unshare(0x40000000): raise OSError(ctypes.get_errno(), "unshare") # CLONE_NEWNET
    with socket.socket() as s: fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x49)) # SIOCSIFFLAGS: up
    l = socket.socket(socket.AF_INET6); l.bind(("::", 7777)); l.listen(50)
    all = [l]
    for i in range(10):
        c = socket.create_connection(("127.0.0.1", 7777)); s, _ = l.accept(); c.sendall(b"x" * 1000); assert len(s.recv(2000)) == 1000
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0)); u.sendto(b"y" * 1000, u.getsockname())
        all += [c, s, u]
    all[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)) # ends with a reset
    all += [socket.create_connection(("127.0.0.1", 7777))] # nobody accepts it
    all += [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300), *socket.socketpair()]
    for s in all: s.close()
for i in range(int(sys.argv[1])): container()
print("fine")`

// TestNetSockets: sockets and network namespaces that are gone leave nothing: 2,000 containers' worth when long ones are wanted.
func TestNetSockets(t *testing.T) {
	need(t, "python3")
	first, rest := 100, 200
	if os.Getenv("MOAT_LONG") != "" {
		first, rest = 400, 1600
	}
	platforms(t, func(t *testing.T, p string) {
		s := newShell(t, p)
		run := func(n int) footprint {
			t.Helper()
			if out, code := s.do(5*time.Minute, fmt.Sprintf("python3 - %d <<'END'\n%s\nEND", n, strings.TrimSpace(containers))); out != "fine\n" || code != "0" {
				t.Fatal(code, out)
			}
			return atRest(s.cmd.Process.Pid)
		}
		a := run(first)
		b := run(rest)
		grown(t, fmt.Sprintf("a sandbox after %d containers' sockets", first+rest), 0, a, b)
		if b.anon > a.anon+32<<20 {
			t.Errorf("%d MiB more", (b.anon-a.anon)>>20)
		}
	})
}

const (
	// holder is A's: it accepts, greets and holds.
	holder = `
import socket, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
l = socket.socket(); l.bind(("10.77.0.1", 5555)); l.listen(4096); print("ready", flush=True)
held = []
while True: held.append(l.accept()[0]); held[-1].send(b"x")`
	// idlers holds 10,000 connections until it reads a line, and then wants all of them to be there.
	idlers = `
import socket, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
held = [socket.create_connection(("10.77.0.1", 5555), 60) for _ in range(10000)]
for s in held: assert s.recv(10) == b"x"; s.setblocking(False)
print("held", flush=True); sys.stdin.readline()
for s in held:
    try: sys.exit("a connection has ended: %r" % s.recv(10))
    except BlockingIOError: pass
print("idle", flush=True)`
)

// TestNetIdleConnections: 10,000 idle connections cost less than 300 MB.
func TestNetIdleConnections(t *testing.T) {
	need(t, "python3", "ip")
	platforms(t, func(t *testing.T, p string) {
		a, b := wire(t, 1500)
		servePython(t, a, holder)
		s := startShell(t, "ip", "netns", "exec", b, moat, "do", "--platform="+p, "--network=sandbox", "--", "bash")
		s.send("python3 -c '" + strings.TrimSpace(idlers) + "'")
		s.expect(2*time.Minute, "held")
		f := atRest(s.cmd.Process.Pid)
		if t.Log(f); f.anon+f.file >= 300e6 {
			t.Errorf("%d MB", (f.anon+f.file)/1e6)
		}
		s.send("")
		s.expect(time.Minute, "idle")
	})
}
