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
