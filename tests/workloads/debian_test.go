package workloads

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// aptGet is bash for apt-get with the main archive of the host's release, binaries and sources, and nothing else of the host's configuration.
// $lists is a directory for what it learns of the archive.
const aptGet = `
. /etc/os-release
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $VERSION_CODENAME" 'Created-By: Packages' 2>/dev/null | head -1)
mirror=${mirror:-http://deb.debian.org/debian/}
mkdir -p $lists/all/partial; printf '%s [trusted=yes] %s %s main\n' deb $mirror $VERSION_CODENAME deb-src $mirror $VERSION_CODENAME > $lists/sources
apt_get() { apt-get -qq -o Dir::Etc::SourceList=$lists/sources -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$lists/all -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"; }
`

// fetched is a directory below build/ that a script, run in it once with apt_get, has filled. Without the archive the test is skipped.
func fetched(t *testing.T, name, text string) string {
	t.Helper()
	need(t, "apt-get")
	dir := filepath.Join(build, name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	tmp, err := os.MkdirTemp(build, name+"-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	os.Chmod(tmp, 0o755)
	r := command(t, 6*time.Minute, tmp, "", "bash", "-c", "set -e; lists=$(mktemp -d); trap 'rm -rf $lists' EXIT"+aptGet+text)
	if r.code != 0 {
		t.Skipf("%s cannot be had from the archive: %v", name, r)
	}
	if err := os.Rename(tmp, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sourcePackage is the unpacked source of a Debian package.
func sourcePackage(t *testing.T, name string) string {
	t.Helper()
	need(t, "dpkg-source")
	ms, _ := filepath.Glob(filepath.Join(fetched(t, "source-"+name, "apt_get update; apt_get source "+name), name+"-*"))
	if len(ms) != 1 {
		t.Fatalf("build/source-%s: %d directories, not one", name, len(ms))
	}
	return ms[0]
}

// minbase is the smallest Debian tree, and a directory of packages to install in it.
func minbase(t *testing.T) (tree, debs string) {
	t.Helper()
	long(t)
	if os.Getuid() != 0 {
		t.Skip("debootstrap needs root")
	}
	need(t, "debootstrap")
	debs = fetched(t, "debs", "apt_get update; apt_get download hello sudo")
	return fetched(t, "minbase", "unshare -mpf --mount-proc debootstrap --variant=minbase $VERSION_CODENAME . $mirror"), debs
}

// inTree runs a script in a Debian tree on the host, in a copy with namespaces of its own, and in a sandbox with --rootfs, and wants the same.
func inTree(t *testing.T, limit time.Duration, text string) {
	t.Helper()
	tree, debs := minbase(t)
	want := command(t, limit, t.TempDir(), text, "unshare", "-mpnf", "bash", "-c", `set -e
mount -t tmpfs tmpfs .; cp -a `+tree+` t; mkdir t/debs; mount --bind `+debs+` t/debs; mount -t proc proc t/proc; mount -t devpts -o newinstance,ptmxmode=666 devpts t/dev/pts
exec chroot t bash`)
	platforms(t, func(t *testing.T, p string) {
		got := sandbox{platform: p, dir: "/", limit: limit, stdin: text, flags: []string{"--rootfs=" + tree, "--volume=" + debs + ":/debs:ro"}}.run(t, "bash")
		if got.out != want.out || got.code != want.code {
			t.Error(differ(got, want))
		}
		t.Logf("host %.1fs, sandbox %.1fs", want.took.Seconds(), got.took.Seconds())
	})
	if !strings.HasSuffix(want.out, "end\n") {
		t.Errorf("the host itself does not come to the end: %v", want)
	}
}

func TestDebianUsers(t *testing.T) {
	inTree(t, time.Minute, `
exec 2>&1; export LC_ALL=C
useradd -m -s /bin/bash alice; useradd -M -r -G mail,alice robot; id alice; id robot; grep alice /etc/passwd /etc/group; getent shadow alice | cut -d: -f1; ls -A /home/alice
echo alice:secret | chpasswd; echo $?; groupadd crew; usermod -aG crew alice; id alice
su alice -c 'id; cd; pwd; touch f; stat -c "%U %G %a" f; cat /etc/shadow; echo $?; echo $HOME; grep ^Cap[IPEA] /proc/self/status; touch /etc/x; kill -0 1; mkdir /root/x'
su - alice -c 'echo $HOME $USER $SHELL; umask; ulimit -c; su -c id </dev/null; echo secret | su alice -c id'
passwd -l alice; passwd -S alice | cut -d' ' -f1,2; su alice -c 'passwd -S' | cut -d' ' -f1,2; chage -l alice | tail -1
# Setuid and setgid programs.
cp /usr/bin/id /usr/bin/cat /tmp; chmod 4755 /tmp/id; su alice -c /tmp/id; chmod 2755 /tmp/id; su alice -c /tmp/id; chmod 6755 /tmp/id; chown alice:crew /tmp/id; stat -c %a /tmp/id; chmod 6755 /tmp/id; su robot -s /bin/sh -c /tmp/id; /tmp/id
chmod 4750 /tmp/cat; su alice -c '/tmp/cat /etc/shadow'; echo $?; chmod 4755 /tmp/cat; su alice -c '/tmp/cat /etc/shadow | wc -l; echo >> /tmp/cat'; stat -c %a /tmp/cat
printf '#!/tmp/id\n' > /tmp/script; chmod 4755 /tmp/script; chown root:root /tmp/id; chmod 755 /tmp/id; su alice -c /tmp/script
su alice -c 'LD_PRELOAD=/nonexistent.so /tmp/cat /dev/null'; echo $?
setpriv --reuid alice --regid crew --clear-groups id; setpriv --reuid alice --clear-groups --no-new-privs /tmp/cat /etc/shadow; echo $?
chroot --userspec=alice:crew / id; gpasswd -d alice crew; userdel -r alice; echo $?; ls /home; id alice
echo end
`)
}

func TestDebianPackages(t *testing.T) {
	inTree(t, 4*time.Minute, `
exec 2>&1; export LC_ALL=C DEBIAN_FRONTEND=noninteractive
echo "127.0.0.1 $(hostname)" >> /etc/hosts; echo 'Dpkg::Use-Pty 0;' > /etc/apt/apt.conf.d/test
apt list --installed 2>/dev/null; dpkg --audit; apt-get check
dpkg -i /debs/hello_*.deb; echo $?; hello; dpkg -l hello | tail -1; dpkg -L hello | grep bin; dpkg -S /usr/bin/hello; dpkg -V hello; echo $?; dpkg -r hello; echo $?
apt-get -qq install -y --no-install-recommends /debs/hello_*.deb /debs/sudo_*.deb; echo $?; hello -g hi; dpkg -s sudo | head -2; stat -c '%a %U' /usr/bin/sudo
useradd -m alice; echo 'alice ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/alice; su alice -c 'sudo -n id; sudo -n -u robot id; sudo -n -u mail id -un; sudo -n sh -c "exit 7"'; echo $?
apt-get -qq purge -y sudo; SUDO_FORCE_REMOVE=yes apt-get -qq purge -y hello sudo; echo $?; ls /usr/bin/sudo; dpkg --audit; apt-mark showmanual | wc -l
echo end
`)
}

// TestDebianReinstall unpacks and configures every package of the base system again, scripts, triggers and all.
func TestDebianReinstall(t *testing.T) {
	inTree(t, 6*time.Minute, `
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
dpkg -i --force-confold /var/cache/apt/archives/*.deb > /tmp/log 2>&1; echo $?; grep -c ^Unpacking /tmp/log; grep -c '^Setting up' /tmp/log; grep -v '^(Reading' /tmp/log | grep -i error
dpkg --audit; dpkg -V; find / -xdev -path /proc -prune -o -type f -perm /6000 -printf '%p %m %u %g\n' | sort; (cd /; md5sum -c --quiet /var/lib/dpkg/info/*.md5sums 2>&1 | sort | uniq -c | head)
echo end
`)
}
