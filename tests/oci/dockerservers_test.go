package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serversTree is a Debian tree with Python, redis, nginx and PostgreSQL, which debootstrap makes once.
func serversTree(t *testing.T) string {
	t.Helper()
	if os.Getenv("MOAT_LONG") == "" {
		t.Skip("takes minutes: MOAT_LONG=1, or make oci")
	}
	tree, err := filepath.Abs("../../build/debian-servers")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	os.MkdirAll(filepath.Dir(tree), 0o755)
	// In namespaces of their own, so that no service that a package starts stays.
	out, err := exec.Command("unshare", "-mpf", "--mount-proc", "bash", "-c", `set -e; . /etc/os-release
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $VERSION_CODENAME" 'Created-By: Packages' 2>/dev/null | head -1)
debootstrap --variant=minbase --include=python3-minimal,redis-server,nginx-light,postgresql "$VERSION_CODENAME" "$0.tmp" "${mirror:-http://deb.debian.org/debian/}" >&2 && mv "$0.tmp" "$0"`, tree).CombinedOutput()
	if err != nil {
		os.RemoveAll(tree + ".tmp")
		t.Skipf("there is no Debian tree to be had from the archive: %v: %s", err, out[max(0, len(out)-1000):])
	}
	return tree
}

// dockerServers: Python, and servers with clients, from an image that was made of a Debian tree.
func dockerServers(t *testing.T, d *docker) {
	tree := serversTree(t)
	tar := exec.Command("tar", "-C", tree, "-c", ".")
	imp := d.command("import", "-", "debian")
	var err error
	if imp.Stdin, err = tar.StdoutPipe(); err == nil {
		err = tar.Start()
	}
	if err == nil {
		err = imp.Run()
		tar.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.run(t, "rmi", "debian") })
	if out := d.ok(t, "run", "--rm", "debian", "python3", "-c", "import sys, zlib; print(sys.version_info[0], zlib.crc32(b'moat'))"); out != "3 2148373276" {
		t.Errorf("Python: %q", out)
	}
	for name, c := range map[string]struct{ server, client, want string }{
		"redis": {"exec redis-server --save ''", "redis-cli set a 42 && redis-cli get a", "OK\n42"},
		"nginx": {"exec nginx -g 'daemon off;'", `exec 3<>/dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep -o '<title>.*</title>' <&3`, "<title>Welcome to nginx!</title>"},
		"postgres": {"cd /tmp && b=$(echo /usr/lib/postgresql/*/bin) && su postgres -c \"$b/initdb -D /tmp/pg && exec $b/postgres -D /tmp/pg -k /tmp\"",
			"su postgres -c \"psql -h /tmp -Atc 'create table t as select generate_series(1, 1000) as n; select sum(n) from t'\"", "SELECT 1000\n500500"},
	} {
		t.Run(name, func(t *testing.T) {
			id := d.start(t, "debian", "bash", "-c", c.server)
			var res result
			for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if res = d.run(t, "exec", id, "bash", "-c", c.client); res.code == 0 {
					break
				}
			}
			if strings.TrimSpace(res.out) != c.want {
				t.Errorf("want %q: %v\n%v", c.want, res, d.run(t, "logs", id))
			}
		})
	}
}
