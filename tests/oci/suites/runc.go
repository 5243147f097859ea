package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const runcVersion = "v1.5.2"

// images makes the root file systems that the tests would download: busybox of the host with its applets and the users of Docker's image; what they
// call Debian is the same with the programs that the tests run there.
const images = `set -e
d=$(mktemp -d); trap 'rm -rf $d' EXIT; cd $d
mkdir -p bin dev etc home root tmp usr/bin usr/sbin var/www var/spool/mail lib
chmod 755 .; chmod 1777 tmp; chmod 700 root
cp "$(command -v busybox)" bin/busybox
for a in $(bin/busybox --list); do [ $a = busybox ] || ln bin/busybox bin/$a; done
ln -s ../../bin/env usr/bin/env
cat > etc/passwd <<E
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
E
cat > etc/group <<E
root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
disk:x:6:
wheel:x:10:root
users:x:100:
nobody:x:65534:
E
tar -cJf "$1/busybox-amd64.tar.xz" .
for p in findmnt chrt ionice bash; do
	f=$(command -v $p); rm -f bin/$p; cp $f bin/$p; cp $f usr/bin/$p
	for l in $(ldd $f | grep -o '/[^ ]*'); do mkdir -p .$(dirname $l); cp -n $l .$l; done
done
tar -cJf "$1/debian-amd64.tar.xz" .`

// runcTests are the files of tests/integration. Those about checkpoints, which need criu, and sshfs are skipped where these are not installed.
var runcTests = suite{
	parallel: 1, // they all use the same names
	prepare: func(dir string) (programs []string, err error) {
		tests := filepath.Join(dir, "tests", "integration")
		if _, err := os.Stat(filepath.Join(tests, "testdata", "debian-amd64.tar.xz")); err != nil {
			if err := module("github.com/opencontainers/runc", runcVersion, dir); err != nil {
				return nil, err
			}
			for _, c := range []string{"recvtty", "fs-idmap", "pidfd-kill", "remap-rootfs", "key_label"} {
				if err := command(dir, "go", "build", "-p", "2", "-o", "tests/cmd/_bin/"+c, "./tests/cmd/"+c); err != nil {
					return nil, err
				}
			}
			// The module's zip keeps no modes.
			if err := command(tests, "sh", "-c", "chmod +x *.sh"); err != nil {
				return nil, err
			}
			if err := command(tests, "bash", "-c", images, "bash", filepath.Join(tests, "testdata")); err != nil {
				return nil, err
			}
		}
		files, err := filepath.Glob(filepath.Join(tests, "*.bats"))
		for _, f := range files {
			programs = append(programs, strings.TrimSuffix(filepath.Base(f), ".bats"))
		}
		return programs, err
	},
	command: func(ctx context.Context, dir, program, runtime string) *exec.Cmd {
		c := exec.CommandContext(ctx, "bats", "--tap", program+".bats")
		c.Dir = filepath.Join(dir, "tests", "integration")
		c.Env = append(os.Environ(), "RUNC="+runtime)
		return c
	},
}
