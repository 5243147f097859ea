package container

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// hostMount is a line of /proc/self/mountinfo.
type hostMount struct{ root, point, fstype string }

// pseudo are file systems that are the host kernel's own affairs: they are never shown to a container.
var pseudo = []string{"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "configfs",
	"fusectl", "autofs", "nsfs", "binfmt_misc", "pstore", "efivarfs", "hugetlbfs", "rpc_pipefs", "selinuxfs", "ramfs", "nfsd"}

func (m *hostMount) pseudo() bool { return slices.Contains(pseudo, m.fstype) }

// hostMounts is the mount table of this process when it was first asked for, the topmost mount of each place only.
var hostMounts = sync.OnceValues(func() ([]hostMount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var ms []hostMount
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		head, tail, ok := strings.Cut(s.Text(), " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(h) < 5 || len(t) < 1 {
			continue
		}
		m := hostMount{escapes.Replace(h[3]), escapes.Replace(h[4]), t[0]}
		// A later mount covers what was there and below.
		ms = slices.DeleteFunc(ms, func(o hostMount) bool { return m.point != "/" && below(o.point, m.point) })
		ms = append(ms, m)
	}
	return ms, s.Err()
})

// rootOf is the path of p, which is absolute and without symlinks, within its file system.
func rootOf(p string) (root string) {
	ms, _ := hostMounts()
	for _, m := range ms { // deeper ones come later
		if below(p, m.point) {
			root = filepath.Join(m.root, strings.TrimPrefix(p, m.point))
		}
	}
	return root
}

const stNoSymFollow = 0x2000 // ST_NOSYMFOLLOW, which package unix lacks

// hostOptions are those that what is mounted at path has on the host. A bind mount keeps them, as Linux has it keep those of another user namespace's mount.
func hostOptions(path string) (opts []string) {
	var st unix.Statfs_t
	_ = unix.Statfs(path, &st) // without an answer, none
	for flag, opt := range map[int64]string{unix.ST_RDONLY: "ro", unix.ST_NOSUID: "nosuid", unix.ST_NODEV: "nodev", unix.ST_NOEXEC: "noexec",
		unix.ST_NOATIME: "noatime", unix.ST_NODIRATIME: "nodiratime", stNoSymFollow: "nosymfollow"} {
		if st.Flags&flag != 0 {
			opts = append(opts, opt)
		}
	}
	return opts
}

// escapes are what mountinfo writes for what separates its fields (the kernel's mangle).
var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\043`, "#", `\134`, `\`)

// below reports whether p is dir or lies in it.
func below(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// submounts are the host's real file systems that are mounted below dir (a clean absolute path without symlinks), as paths relative to it.
// What lies in a directory of hidden (absolute paths) is left out.
func submounts(dir string, hidden []string) ([]string, error) {
	ms, err := hostMounts()
	if err != nil {
		return nil, err
	}
	var rel []string
next:
	for _, m := range ms {
		if m.point == dir || !below(m.point, dir) || m.pseudo() {
			continue
		}
		for _, h := range hidden {
			if below(m.point, h) {
				continue next
			}
		}
		for _, o := range ms {
			if o.pseudo() && o.point != m.point && o.point != "/" && below(m.point, o.point) && below(o.point, dir) {
				continue next
			}
		}
		rel = append(rel, strings.TrimPrefix(strings.TrimPrefix(m.point, dir), "/"))
	}
	return rel, nil
}
