package oci

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// host runs a script where the daemon's bridges are, and fails if it does.
func (d *docker) host(t *testing.T, script string) string {
	t.Helper()
	r := run(t, nil, "nsenter", "-t", fmt.Sprint(d.cmd.Process.Pid), "-n", "sh", "-c", script)
	if r.code != 0 {
		t.Fatalf("%s: %v", script, r)
	}
	return strings.TrimSpace(r.out)
}

// background keeps a program running there until the test ends.
func (d *docker) background(t *testing.T, argv ...string) {
	t.Helper()
	c := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(d.cmd.Process.Pid), "-n"}, argv...)...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
}

const (
	// web serves its host's name on port 80, by IPv4 and IPv6; fetch gets it.
	web   = "cd /tmp; hostname > index.html; exec busybox httpd -f -p [::]:80"
	fetch = "for i in $(busybox seq 50); do busybox wget -qO- http://%s 2>/dev/null && break; sleep 0.1; done"
	// lookup asks for a name's address.
	lookup = "busybox nslookup -type=a %s 2>&1 | busybox tail -n +3 | grep -o '[0-9.]*$' | grep ."
)

// dockerNetwork: the default bridge, published ports, user-defined networks with Docker's name server, IPv6, and the host's network.
func dockerNetwork(t *testing.T, d *docker) {
	first := func(t *testing.T, name string) string {
		return d.inspect(t, name, "range .NetworkSettings.Networks}}{{.IPAddress}}{{end")
	}
	get := func(addr string) string { return fmt.Sprintf(fetch, addr) }
	in := func(t *testing.T, id, script string) string {
		t.Helper()
		return d.ok(t, "exec", id, "sh", "-c", script)
	}
	t.Run("bridge", func(t *testing.T) {
		a := d.start(t, "--hostname", "one", "-p", "127.0.0.1:8080:80", "box", "sh", "-c", web)
		b := d.start(t, "--hostname", "two", "box", "sh", "-c", web)
		d.background(t, "busybox", "httpd", "-f", "-p", "0.0.0.0:8081", "-h", rootfs+"/etc")
		for name, c := range map[string][2]string{
			"published":              {d.host(t, "busybox wget -qO- http://127.0.0.1:8080/"), "one"},
			"host to container":      {d.host(t, "busybox wget -qO- http://"+first(t, a)+"/"), "one"},
			"container to host":      {in(t, b, get("10.99.0.1:8081/passwd")+" | grep -c root"), "1"},
			"container to container": {in(t, a, get(first(t, b))), "two"},
			"ping":                   {in(t, a, "busybox ping -c 2 -W 5 "+first(t, b)+" | grep -o ' 0% packet loss'"), " 0% packet loss"},
			"ping the host":          {in(t, a, "busybox ping -c 1 -W 5 10.99.0.1 | grep -o ' 0% packet loss'"), " 0% packet loss"},
		} {
			if c[0] != c[1] {
				t.Errorf("%s: %q, want %q", name, c[0], c[1])
			}
		}
	})
	d.ok(t, "network", "create", "--subnet", "10.98.1.0/24", "user")
	t.Cleanup(func() { d.run(t, "network", "rm", "user") })
	// A name server elsewhere, which Docker's asks for names that are not its own.
	d.background(t, "dnsmasq", "-k", "--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=10.98.1.1", "--pid-file=", "--address=/x.test/10.1.2.3")
	for _, runtime := range []string{"moat", "moat-host"} {
		t.Run("names with "+runtime, func(t *testing.T) {
			c := []string{"--runtime", runtime, "--network", "user", "--dns", "10.98.1.1"}
			if runtime == "moat-host" {
				// Its ports are those that everybody may have.
				c = append(c, "--sysctl", "net.ipv4.ip_unprivileged_port_start=0")
			}
			b := d.start(t, append(c, "--name", "server", "--hostname", "srv", "box", "sh", "-c", web)...)
			a := d.start(t, append(c, "--name", "client", "box", "sleep", "1000")...)
			for name, v := range map[string][2]string{
				"a container's name":     {in(t, a, fmt.Sprintf(lookup, "server")), first(t, b)},
				"a name elsewhere":       {in(t, a, fmt.Sprintf(lookup, "x.test")), "10.1.2.3"},
				"a hundred":              {in(t, a, "for i in $(busybox seq 100); do "+fmt.Sprintf(lookup, "x.test")+"; done | busybox uniq -c | busybox awk '{print $1, $2}'"), "100 10.1.2.3"},
				"its web server":         {in(t, a, get("server")), "srv"},
				"nothing else is on lo":  {in(t, a, "busybox nc -w 2 127.0.0.11 54 < /dev/null 2>/dev/null; echo $?"), "1"},
				"TCP to the name server": {in(t, a, `busybox printf '\0\030\1\2\1\0\0\1\0\0\0\0\0\0\6server\0\0\1\0\1' | busybox nc -w 2 127.0.0.11 53 | busybox tail -c 4 | busybox od -An -tu1 | busybox tr -s ' ' . | busybox tail -c +2`), first(t, b)},
			} {
				if v[0] != v[1] {
					t.Errorf("%s: %q, want %q", name, v[0], v[1])
				}
			}
		})
	}
	t.Run("IPv6", func(t *testing.T) {
		d.ok(t, "network", "create", "--ipv6", "--subnet", "fd98:2::/64", "--subnet", "10.98.2.0/24", "six")
		t.Cleanup(func() { d.run(t, "network", "rm", "six") })
		b := d.start(t, "--network", "six", "--hostname", "v6", "box", "sh", "-c", web)
		a := d.start(t, "--network", "six", "box", "sleep", "1000")
		addr := d.inspect(t, b, ".NetworkSettings.Networks.six.GlobalIPv6Address")
		if s := in(t, a, get("["+addr+"]")); s != "v6" {
			t.Errorf("TCP: %q", s)
		}
		if s := in(t, a, "busybox ping -6 -c 1 -W 5 "+addr+" | grep -o ' 0% packet loss'"); s != " 0% packet loss" {
			t.Errorf("ping: %q", s)
		}
		// Until the host knows that the bridge's address is nobody else's, it connects with one of another link.
		eventually(t, "the address of the bridge", func() bool { return d.host(t, "ip -6 -o addr show tentative to fd98:2::/64") == "" })
		if s := d.host(t, "busybox wget -qO- http://["+addr+"]/"); s != "v6" {
			t.Errorf("from the host: %q", s)
		}
	})
	t.Run("host", func(t *testing.T) {
		if s := d.ok(t, "run", "--rm", "--network", "host", "box", "sh", "-c", "busybox ip -o addr | busybox awk '{print $2}' | busybox uniq"); s != "lo" {
			t.Errorf("the host's interfaces are in reach without --network host: %q", s)
		}
		d.start(t, "--runtime", "moat-host", "--network", "host", "box", "sh", "-c", "cd /tmp; echo of the host > index.html; exec busybox httpd -f -p 8090")
		if s := d.host(t, get("127.0.0.1:8090")); s != "of the host" {
			t.Errorf("with it: %q", s)
		}
	})
}
