package workloads

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// service is a server and what a client of it must get. Both are bash scripts that find the server's address in $S, an empty directory of their own as
// working directory, and the built netprog in $NETPROG.
type service struct {
	name, needs string
	port        int
	server      string // stays in the foreground
	client      string
	want        string // the client's output
}

var services = []service{
	{"nginx", "nginx wrk curl sha256sum", 8080, `
		mkdir -p www logs; head -c 3000000 /dev/zero > www/big; echo hello > www/index.html
		cat > nginx.conf <<-END
		daemon off; pid $PWD/pid; error_log $PWD/logs/e; worker_processes 2; events {}
		http { access_log off; client_body_temp_path $PWD/b; proxy_temp_path $PWD/p; fastcgi_temp_path $PWD/f; uwsgi_temp_path $PWD/u; scgi_temp_path $PWD/s;
		server { listen 8080; root $PWD/www; } }
		END
		chmod -R 777 .; exec nginx -p . -c $PWD/nginx.conf`, `
		curl -sS http://$S:8080/; curl -sS http://$S:8080/big | wc -c
		curl -sS -o /dev/null -w '%{http_code}\n' http://$S:8080/none
		wrk -t1 -c20 -d2s http://$S:8080/ > wrk.out; grep -q Requests/sec wrk.out && ! grep -E 'Socket errors|Non-2xx' wrk.out && echo fine`,
		"hello\n3000000\n404\nfine\n"},
	{"redis", "redis-server redis-benchmark redis-cli", 6399, `exec redis-server --port 6399 --bind 0.0.0.0 --protected-mode no --save '' --appendonly no`, `
		redis-benchmark -h $S -p 6399 -n 500 -c 20 --csv > one; redis-benchmark -h $S -p 6399 -n 2000 -c 20 -P 16 -t set,get --csv > two
		echo $(wc -l < one) $(wc -l < two); redis-cli -h $S -p 6399 set a b; redis-cli -h $S -p 6399 get a`, "21 3\nOK\nb\n"},
	{"memcached", "memcached python3", 11299, `exec memcached -u nobody -l 0.0.0.0 -p 11299`, `python3 -c '
import socket, os
s = socket.create_connection((os.environ["S"], 11299)); f = s.makefile("rwb")
for i in range(500): f.write(b"set k%d 0 0 1000\r\n%s\r\n" % (i, b"%d" % (i % 10) * 1000))
f.flush()
assert all(f.readline() == b"STORED\r\n" for i in range(500))
for i in range(500):
    f.write(b"get k%d\r\n" % i); f.flush()
    assert f.readline() == b"VALUE k%d 0 1000\r\n" % i and f.readline() == b"%d" % (i % 10) * 1000 + b"\r\n" and f.readline() == b"END\r\n"
print("fine")'`, "fine\n"},
	{"postgres", "setpriv", 5499, `
		bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); chown nobody .
		as() { setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=$PWD "$@"; }
		as $bin/initdb -D data -A trust -U me > log 2>&1 || { cat log >&2; exit 1; }
		echo 'host all all 0.0.0.0/0 trust' >> data/pg_hba.conf
		exec setpriv --reuid=65534 --regid=65534 --clear-groups $bin/postgres -D data -p 5499 -h 0.0.0.0 -k $PWD`, `
		bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); export PGHOST=$S PGPORT=5499 PGUSER=me PGDATABASE=postgres
		until $bin/pg_isready -q; do sleep .1; done
		$bin/pgbench -i -s 1 -q 2>/dev/null; $bin/pgbench -n -c 4 -t 50 2>&1 | grep 'actually processed'; $bin/psql -Atc 'select count(*) from pgbench_history'`,
		"number of transactions actually processed: 200/200\n200\n"},
	{"http.server", "python3 curl", 8081, `seq 300000 > f; exec python3 -m http.server 8081`, `curl -sS http://$S:8081/f | tail -n1; curl -sS http://$S:8081/ | grep -c '>f<'`, "300000\n1\n"},
	{"asyncio", "python3", 8082, `exec python3 -c '
import asyncio
async def echo(r, w):
    while d := await r.read(65536): w.write(d); await w.drain()
    w.close()
async def main():
    async with await asyncio.start_server(echo, "0.0.0.0", 8082) as s: await s.serve_forever()
asyncio.run(main())'`, `python3 -c '
import asyncio, os
async def one(i):
    r, w = await asyncio.open_connection(os.environ["S"], 8082)
    for j in range(20):
        d = bytes([i]) * (1 + 997 * j); w.write(d); assert await r.readexactly(len(d)) == d
    w.write_eof(); assert await r.read() == b""
async def main(): await asyncio.gather(*(one(i) for i in range(100)))
asyncio.run(main()); print("fine")'`, "fine\n"},
	{"go", "go", 8083, `exec $NETPROG serve 0.0.0.0:8083`, `$NETPROG call http://$S:8083/`, "400 answers\n"},
	{"node", "node curl", 8084, `exec node -e 'require("http").createServer((q, r) => { let n = 0; q.on("data", d => n += d.length); q.on("end", () => r.end(n + "\n")) }).listen(8084, "0.0.0.0")'`, `
		for n in 0 1 1000000; do head -c $n /dev/zero | curl -sS --data-binary @- http://$S:8084/; done`, "0\n1\n1000000\n"},
	{"iperf3", "iperf3", 5299, `exec iperf3 -s -p 5299 > /dev/null`, `
		for a in "" -R "-P 4" "-u -b 20M -l 1400" "-u -b 20M -l 1400 -R"; do
			# between two tests the server does not listen
			for i in $(seq 50); do iperf3 -c $S -p 5299 -n 5M $a > out 2>&1 && break; grep -q 'Connection refused' out || break; sleep .1; done
			grep -q receiver out && echo "fine $a" || cat out
		done`, "fine \nfine -R\nfine -P 4\nfine -u -b 20M -l 1400\nfine -u -b 20M -l 1400 -R\n"},
	{"ssh", "ssh ssh-keygen rsync git", 2299, `
		ssh-keygen -q -t ed25519 -N '' -f host; cp $KEYS/id.pub keys; mkdir -p /run/sshd; chmod 700 .; chmod 600 keys
		exec $(command -v sshd || echo /usr/sbin/sshd) -D -e -f /dev/null -p 2299 -h $PWD/host -o AuthorizedKeysFile=$PWD/keys -o StrictModes=no -o PidFile=none -o UsePAM=no`, `
		cp $KEYS/id id; chmod 600 id; umask 022; unset SSH_ASKPASS
		export GIT_SSH_COMMAND="ssh -p 2299 -i $PWD/id -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR" GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
		run() { $GIT_SSH_COMMAND root@$S "$@"; }
		run 'echo $((6*7))'; head -c 2000000 /dev/zero | run wc -c; run exit 3; echo $?; $GIT_SSH_COMMAND -tt root@$S 'test -t 0 && echo a terminal' | tr -d '\r'
		mkdir tree; for i in $(seq 100); do echo $i > tree/$i; done
		dir=$(run mktemp -d); rsync -a -e "$GIT_SSH_COMMAND" tree/ root@$S:$dir/; rsync -a -e "$GIT_SSH_COMMAND" root@$S:$dir/ back; diff -r tree back && echo same
		run "cd $dir && git init -q . && git add . && git -c user.name=a -c user.email=b commit -qm x && git config --global --add safe.directory '*'"
		git clone -q root@$S:$dir clone && ls clone | wc -l; run rm -r $dir`, "42\n2000000\n3\na terminal\nsame\n100\n"},
	{"dnsmasq", "dnsmasq dig", 5399, `exec dnsmasq -k -p 5399 --no-resolv --no-hosts --no-daemon --address=/x.test/10.1.2.3 --txt-record=t.test,$(head -c 200 /dev/zero | tr '\0' a) 2>/dev/null`, `
		for o in +notcp +tcp; do dig +short +tries=3 $o -p 5399 @$S x.test; dig +short $o -p 5399 @$S txt t.test | wc -c; done`, "10.1.2.3\n203\n10.1.2.3\n203\n"},
}

// waitPort waits in bash until the server listens.
const waitPort = `n=0; until (exec 3<>/dev/tcp/$S/%d) 2>/dev/null; do n=$((n+1)); [ $n -gt 300 ] && { echo "no server"; exit 1; }; sleep .1; done; `

// TestServers: real servers and their clients, over the loopback of one sandbox, and over a veth with either end in a sandbox and the other on the host.
func TestServers(t *testing.T) {
	if os.Getenv("MOAT_NET") == "" {
		t.Skip("make net, which installs the servers")
	}
	// t.TempDir is closed to nobody, as which some servers run.
	dir, err := os.MkdirTemp("", "moat-servers-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	prog := filepath.Join(dir, "netprog")
	if r := command(t, 2*time.Minute, "", "", "bash", "-c", "CGO_ENABLED=0 go build -o "+prog+" ./testdata/netprog && ssh-keygen -q -t ed25519 -N '' -f "+dir+"/id"); r.code != 0 {
		t.Fatal(r)
	}
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			need(t, strings.Fields(s.needs)...)
			env := func(addr string) string {
				return fmt.Sprintf("set -e; export S=%s NETPROG=%s KEYS=%s; cd $(mktemp -d); ", addr, prog, dir)
			}
			server := func(addr string) string { return env(addr) + s.server }
			client := func(addr string) string { return env(addr) + fmt.Sprintf(waitPort, s.port) + "set +e; " + s.client }
			verify := func(t *testing.T, r result) {
				t.Helper()
				if r.out != s.want {
					t.Errorf("want %q\n%v", s.want, r)
				}
				t.Logf("%.1fs", r.took.Seconds())
			}
			platforms(t, func(t *testing.T, p string) {
				do := func(ns string, script string) []string {
					return []string{"ip", "netns", "exec", ns, moat, "do", "--platform=" + p, "--network=sandbox", "--", "bash", "-c", script}
				}
				t.Run("lo", func(t *testing.T) {
					r := sandbox{platform: p, dir: t.TempDir()}.run(t, "bash", "-c", "("+server("127.0.0.1")+") >/tmp/log 2>&1 & "+client("127.0.0.1"))
					verify(t, r)
				})
				a, b := wire(t, 1500)
				native := func(ns, script string) []string {
					return []string{"ip", "netns", "exec", ns, "env", "TMPDIR=" + dir, "bash", "-c", script}
				}
				t.Run("serves", func(t *testing.T) {
					serve(t, do(b, server("10.77.0.2"))...)
					verify(t, command(t, 2*time.Minute, t.TempDir(), "", native(a, client("10.77.0.2"))...))
				})
				t.Run("calls", func(t *testing.T) {
					serve(t, native(a, server("10.77.0.1"))...)
					verify(t, command(t, 2*time.Minute, "", "", do(b, client("10.77.0.1"))...))
				})
			})
		})
	}
}

// serve starts a program in a process group of its own, all of which ends with the test; what it said is shown if the test failed.
func serve(t *testing.T, argv ...string) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Env, c.Stdout, c.Stderr = environ(), f, f
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		done := time.AfterFunc(5*time.Second, func() { syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
		c.Wait()
		done.Stop()
		if b, _ := os.ReadFile(f.Name()); t.Failed() && len(b) > 0 {
			t.Logf("the server said: %s", clip(string(b)))
		}
		f.Close()
	})
}
