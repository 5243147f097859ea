package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// service is a server that runs in a container and a client of it that runs natively in a namespace at the other end of a veth. Both are shell scripts; $B
// has the programs of prog, $A is the server's address, $T an empty directory. The client prints a line for each figure, its name and its nanoseconds.
type service struct {
	name, server, client string
	port                 int
}

const (
	serverAddr = "10.78.0.2"
	held       = 10000
	caseHeld   = "10,000 idle connections, memory (PSS)"
	// loopback has no client outside: it prints its figures itself.
	loopback = "loopback"
)

var services = []service{
	{"iperf3", "iperf3 -s -p 5299", `
		mb() { awk -v n="$1" '/receiver/ { for (i = 2; i <= NF; i++) if ($i == "Kbits/sec") print n, 8e12 / $(i-1) }'; }
		iperf3 -c $A -p 5299 -t 2 -f k | mb iperf3-in,_1_MB; sleep .2; iperf3 -c $A -p 5299 -t 2 -f k -R | mb iperf3-out,_1_MB`, 5299},
	{"nginx", `cd $T; mkdir www; head -c 1000 /dev/zero > www/index.html; chmod -R 777 .
		echo "daemon off; pid $T/pid; error_log $T/e; worker_processes 2; events {} http { access_log off; keepalive_requests 100000000;
		client_body_temp_path $T/b; proxy_temp_path $T/p; fastcgi_temp_path $T/f; uwsgi_temp_path $T/u; scgi_temp_path $T/s; server { listen 8080; root $T/www; } }" > c
		nginx -p . -c $T/c`, `
		wrk -t1 -c20 -d2s --latency http://$A:8080/ | awk '
		/Requests.sec/ { print "nginx,_request", 1e9 / $2 } / 99%/ { print "nginx,_p99", $2 * ($2 ~ /us$/ ? 1e3 : $2 ~ /ms$/ ? 1e6 : 1e9) }'`, 8080},
	{"redis", "redis-server --port 6399 --bind 0.0.0.0 --protected-mode no --save '' --appendonly no", `
		b() { redis-benchmark -h $A -p 6399 -t set,get --csv "$@" | awk -F'"' 'NR > 1 { print "redis_" $2 "'$n'", 1e9 / $4 }'; }
		b -n 20000; n=,_pipelined b -n 200000 -P 16`, 6399},
	{"connections", "$B/net echo 5555", "$B/net connect $A 5555 8000", 5555},
	{loopback, "$B/net lo", "", 0},
	{caseHeld, "$B/net echo 5555", "$B/net hold $A 5555 " + strconv.Itoa(held), 5555},
}

// network measures servers in a container from outside, and the container's own loopback. Each container has a new network namespace; all are
// named below a tmpfs of this mount namespace's, and so end with it.
func (b *bench) network() {
	check(os.MkdirAll("/run/netns", 0o755))
	check(unix.Mount("netns", "/run/netns", "tmpfs", 0, "mode=755"))
	bin := filepath.Dir(b.compile("net", "-static"))
	byName := map[string]service{}
	var names []string
	for _, s := range services {
		names, byName[s.name] = append(names, s.name), s
	}
	b.each(names, func(r *runner, name string) {
		// The client's is new, too: in one with the connections that runners before left in TIME_WAIT, a port is looked for the longer the later a runner comes.
		run("ip netns add client; ip -n client link set lo up; ip netns exec client sysctl -qw net.ipv4.ip_local_port_range='2000 65000'; " +
			"ip netns add server; ip -n server link set lo up; ip link add eth0 netns server type veth peer name eth0 netns client; " +
			"ip -n server addr add " + serverAddr + "/24 dev eth0; ip -n client addr add 10.78.0.1/24 dev eth0; ip -n server link set eth0 up; ip -n client link set eth0 up")
		defer run("ip -n client link del eth0; ip netns del client; ip netns del server") // a namespace ends in its own time
		if err := b.serve(r, byName[name], bin); err != nil {
			fmt.Fprintf(os.Stderr, "\nbench: %s: %s: %v\n", r.name, name, err)
		}
	})
}

// run runs a script that must not fail.
func run(script string) {
	if out, err := exec.Command("/bin/sh", "-ec", script).CombinedOutput(); err != nil {
		check(fmt.Errorf("%s: %v: %s", script, err, out))
	}
}

// serve runs a service on a runner.
func (b *bench) serve(r *runner, s service, bin string) (err error) {
	script := fmt.Sprintf("export A=%s B=%s PATH=%s T=$(mktemp -d); ", serverAddr, bin, os.Getenv("PATH"))
	server := script + "(" + s.server + ") "
	if s.name != loopback {
		server += "> /dev/null & exec cat" // the server ends with the container's first process
	}
	cmd := r.inside("server", "/bin/sh", "-c", server)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if s.name == loopback {
		out, err := cmd.Output()
		b.figures(r, out)
		return err
	}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	defer func() {
		in.Close()
		if e := cmd.Wait(); err == nil && e != nil {
			err = fmt.Errorf("%w: %s", e, errs.Bytes())
		}
	}()
	wait := fmt.Sprintf("i=0; until bash -c 'exec 3<>/dev/tcp/%s/%d' 2>/dev/null; do i=$((i+1)); [ $i -gt 100 ] && exit 1; sleep .1; done; sleep .5; ulimit -n %d; ", serverAddr, s.port, 2*held)
	client := exec.Command("ip", "netns", "exec", "client", "/bin/sh", "-c", script+wait+s.client)
	client.Stderr = os.Stderr
	if s.name != caseHeld {
		out, err := client.Output()
		b.figures(r, out)
		return err
	}
	stop, err := client.StdinPipe()
	if err != nil {
		return err
	}
	out, err := client.StdoutPipe()
	if err == nil {
		err = client.Start()
	}
	if err != nil {
		return err
	}
	if _, err = bufio.NewReader(out).ReadString('\n'); err == nil {
		time.Sleep(time.Second)
		b.all.add(partMemory, r.name, caseHeld, memory(cmd.Process.Pid))
	}
	stop.Close()
	client.Wait()
	return err
}

// figures takes what a client or loopback printed.
func (b *bench) figures(r *runner, out []byte) {
	for line := range bytes.Lines(out) {
		if f := strings.Fields(string(line)); len(f) == 2 {
			if v, err := strconv.ParseFloat(f[1], 64); err == nil {
				b.all.add(partNetwork, r.name, strings.ReplaceAll(f[0], "_", " "), v)
			}
		}
	}
}
