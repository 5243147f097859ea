package workloads

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hostScript uses sockets of the host: what it prints must be the same without moat but for the port and the kinds of sockets that need rights.
const hostScript = `
import socket, os, select, struct, threading
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(); p = l.getsockname()[1]
c = socket.socket(); c.setblocking(False)
try: c.connect(("127.0.0.1", p))
except BlockingIOError: pass
ep = select.epoll(); ep.register(c, select.EPOLLOUT); assert ep.poll(5)
a, peer = l.accept(); assert peer == c.getsockname(); c.setblocking(True)
a.sendall(b"abc"); assert c.recv(2, socket.MSG_PEEK) == b"ab" and c.recv(10) == b"abc"
assert not any(ep.poll(0)[0][1] & select.EPOLLIN for _ in (0,))
big, got = os.urandom(3 << 20), []
def rd():
    while d := a.recv(1 << 16): got.append(d)
t = threading.Thread(target=rd); t.start(); c.sendall(big); c.shutdown(1); t.join(); assert b"".join(got) == big
assert a.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0] == 8 # CLOSE_WAIT
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("::1", 0)); v = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
v.sendto(b"x" * 5000, u.getsockname()); d, anc, fl, ad = u.recvmsg(100, 200)
assert len(d) == 100 and fl & socket.MSG_TRUNC and anc[0][1] == socket.IPV6_PKTINFO and ad[1] == v.getsockname()[1]
v.sendmsg([b"y", b"z"], [(socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("i", 9))], 0, u.getsockname()); assert u.recv(10) == b"yz"
try: socket.create_connection(("127.0.0.1", 1)); assert 0
except ConnectionRefusedError: pass
for o, val in ((socket.SO_REUSEADDR, 1), (socket.SO_KEEPALIVE, 1), (socket.SO_SNDBUF, 50000), (socket.SO_RCVBUF, 60000)):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, o, val); print(o, s.getsockopt(socket.SOL_SOCKET, o))
s = socket.socket(); s.settimeout(.05); s.bind(("127.0.0.1", 0)); s.listen()
try: s.accept(); assert 0
except TimeoutError: pass
line = [x for x in open("/proc/net/tcp") if x.split()[1] == "0100007F:%04X" % p and x.split()[3] == "0A"]; assert line
for i in range(3000): socket.socket().close()
assert socket.if_nametoindex("eth0") > 1
for k in (socket.AF_INET, socket.AF_PACKET):
    try: socket.socket(k, socket.SOCK_RAW, 1); print("raw")
    except PermissionError: print("no raw")
try: socket.socket().bind(("", 80)); print("bound")
except PermissionError: print("no port 80")`

const hostWants = "2 1\n9 1\n7 100000\n8 120000\nno raw\nno raw\nno port 80\n"

// TestHostNetwork: with --network host the sockets are those of the network namespace that the caller is in, which keeps its addresses; what needs rights on
// the host is refused, and the filter allows nothing else.
func TestHostNetwork(t *testing.T) {
	need(t, "python3", "ip")
	platforms(t, func(t *testing.T, p string) {
		a, b := wire(t, 1500)
		r := command(t, time.Minute, "", "", "ip", "netns", "exec", b, moat, "do", "--platform="+p, "--network=host", "--", "python3", "-c", hostScript)
		if r.out != hostWants || !strings.Contains(r.err, "--network host: the container's sockets are the host kernel's") {
			t.Fatal(r)
		}
		// Ping sockets are for the groups that the host says.
		if r := command(t, time.Minute, "", "", "ip", "netns", "exec", b, "sh", "-c", "echo 0 65534 > /proc/sys/net/ipv4/ping_group_range"); r.code != 0 {
			t.Fatal(r)
		}
		servePython(t, a, peerScript)
		if r := command(t, time.Minute, "", "", "ip", "netns", "exec", b, moat, "do", "--platform="+p, "--network=host", "--", "python3", "-c", insideScript); r.out != insideWants {
			t.Errorf("want %s\n%v", insideWants, r)
		}
	})
}

// userServer answers in namespace A, by TCP and UDP.
const userServer = `
import socket, threading
l = socket.socket(); l.bind(("10.77.0.1", 5555)); l.listen()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("10.77.0.1", 5556))
def udp():
    while True: d, a = u.recvfrom(9999); u.sendto(d, a)
threading.Thread(target=udp, daemon=True).start(); print("ready", flush=True)
while True:
    c, _ = l.accept(); n = 0
    while d := c.recv(65536): n += len(d)
    c.sendall(b"%d" % n); c.close()`

const userClient = `
import socket
s = socket.create_connection(("10.77.0.1", 5555)); s.sendall(b"x" * 2000000); s.shutdown(1); print(s.recv(100).decode())
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(("10.77.0.1", 5556)); u.send(b"y" * 1000); print(len(u.recv(2000)))`

// TestUserNetwork: --network user reaches the network of the host through pasta and through slirp4netns, of root and of an ordinary user; without either it
// says so; and nothing is left of it, even if moat is killed.
func TestUserNetwork(t *testing.T) {
	need(t, "python3", "ip", "setpriv", "unshare", "pasta", "slirp4netns")
	a, b := wire(t, 1500)
	servePython(t, a, userServer)
	// The host's device for tunnels may be root's alone. Each program is found in a PATH of its own.
	bin := t.TempDir()
	os.Chmod(bin, 0o755)
	os.Chmod(filepath.Dir(bin), 0o755)
	run := func(user, program string, argv ...string) result {
		dir := filepath.Join(bin, program)
		os.MkdirAll(dir, 0o755)
		if path, err := exec.LookPath(program); err == nil {
			os.Symlink(path, filepath.Join(dir, program))
		}
		script := "mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec setpriv --reuid=" + user + " --regid=" + user +
			` --clear-groups env PATH=` + dir + ` "$@"`
		return command(t, time.Minute, "", "", append([]string{"ip", "netns", "exec", b, "unshare", "-m", "sh", "-c", script, "sh"}, argv...)...)
	}
	left := func() bool {
		return exec.Command("pgrep", "-f", "user-network|pasta .*--config-net|slirp4netns --configure").Run() == nil
	}
	platforms(t, func(t *testing.T, p string) {
		do := []string{moat, "do", "--platform=" + p, "--network=user", "--"}
		for _, user := range []string{"0", "1000"} {
			for _, program := range []string{"pasta", "slirp4netns"} {
				t.Run(program+" of "+user, func(t *testing.T) {
					if r := run(user, program, append(do, "/usr/bin/python3", "-c", userClient)...); r.out != "2000000\n1000\n" || r.code != 0 {
						t.Error(r)
					}
				})
			}
		}
		oneLine(t, run("1000", "nothing", append(do, "/bin/true")...), 125, "--network user", "pasta", "passt", "slirp4netns", "install")
		if r := run("1000", "pasta", "/usr/bin/timeout", "-s", "KILL", "1", moat, "do", "--platform="+p, "--network=user", "--", "/bin/sleep", "99"); r.code == 0 {
			t.Error(r)
		}
	})
	for end := time.Now().Add(20 * time.Second); left(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("helpers of --network user are left")
		}
	}
}

// TestIPTables: iptables' rules of IPv4 as sidecars set them: REDIRECT of what is not the sidecar's own, and what it was for; DNAT, DROP, REJECT, chains. What is
// not carried is refused.
func TestIPTables(t *testing.T) {
	need(t, "iptables-legacy", "python3", "setpriv")
	checks(t, time.Minute, `set -e
		i=iptables-legacy
		$i -t nat -N OUT; $i -t nat -A OUTPUT -p tcp -j OUT
		$i -t nat -A OUT -m owner --uid-owner 1337 -j RETURN
		$i -t nat -A OUT -p tcp --dport 8888 -m comment --comment sidecar -j REDIRECT --to-ports 15001
		$i -t nat -A OUT -d 10.1.2.3/32 -p tcp --dport 80 -j DNAT --to-destination 127.0.0.1:15001
		$i -t nat -A OUT -p tcp -m multiport --dports 9999,20000:20002 -j REDIRECT --to-ports 15001
		$i -A INPUT -p tcp --dport 7777 -j DROP; $i -A OUTPUT -p tcp --dport 7778 -j REJECT
		[ "$($i -t nat -S OUT | tail -2)" = "-A OUT -d 10.1.2.3/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 127.0.0.1:15001
-A OUT -p tcp -m multiport --dports 9999,20000:20002 -j REDIRECT --to-ports 15001" ]
		iptables-legacy-save > /tmp/rules; $i -F; [ "$($i -S | wc -l)" = 3 ]; iptables-legacy-restore < /tmp/rules; [ "$($i -S | wc -l)" = 5 ]
		! $i -t mangle -L 2>/dev/null; ! $i -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT 2>/dev/null
		! $i -t nat -A OUT -j OUT 2>/dev/null
		! setpriv --bounding-set -net_admin $i -L 2>/dev/null
		cat > /tmp/c.py <<-END
		import socket, struct, sys, threading
		def serve(port):
		    l = socket.socket(); l.setsockopt(1, 2, 1); l.bind(("127.0.0.1", port)); l.listen()
		    def run():
		        while True:
		            c, _ = l.accept()
		            try: p, a = struct.unpack("!2xH4s8x", c.getsockopt(0, 80, 16)); who = "%s:%d" % (socket.inet_ntoa(a), p)
		            except OSError: who = "nobody"
		            c.sendall(("%d for %s" % (port, who)).encode()); c.close()
		    threading.Thread(target=run, daemon=True).start()
		serve(int(sys.argv[1]))
		for to in sys.argv[2:]:
		    a, _, p = to.partition(":")
		    try: print(socket.create_connection((a, int(p)), 1).recv(100).decode())
		    except OSError as e: print(type(e).__name__)
		END
		[ "$(echo $(python3 /tmp/c.py 15001 127.0.0.1:8888 127.0.0.1:7777 127.0.0.1:7778 127.0.0.1:20001 127.0.0.1:20003))" = \
			"15001 for 127.0.0.1:8888 TimeoutError ConnectionRefusedError 15001 for 127.0.0.1:20001 ConnectionRefusedError" ]
		setpriv --reuid 1337 --clear-groups python3 /tmp/c.py 8888 127.0.0.1:8888`,
		"8888 for 127.0.0.1:8888")
}
