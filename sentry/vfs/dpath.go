package vfs

import (
	"golang.org/x/sys/unix"
)

// GetPath is getcwd(2)'s and /proc's view of p: the path from root, with " (deleted)" behind an unlinked name. ENOENT from getcwd is the
// caller's (p.Dentry.Deleted()). reachable is false if p is not below root: then the path starts at the root of p's mount tree.
func GetPath(root, p Path) (path string, reachable bool) {
	// Built backwards; the shape may change meanwhile, as it may right after.
	var buf [512]byte
	b := buf[:]
	n := len(b)
	push := func(s string) {
		if need := len(s) + 1; need > n {
			nb := make([]byte, 2*len(b)+need)
			m := len(nb) - (len(b) - n)
			copy(nb[m:], b[n:])
			b, n = nb, m
		}
		n -= len(s)
		copy(b[n:], s)
		n--
		b[n] = '/'
	}
	m, d := p.Mount, p.Dentry
	reachable = true
	for depth := 0; depth < 1<<16; depth++ {
		if m == root.Mount && d == root.Dentry {
			break
		}
		if d == m.root {
			at := m.place.Load()
			if at == nil {
				reachable = !root.Ok() || root.Mount.sb == m.sb && root.Dentry == d
				break
			}
			m, d = at.parent, at.point
			continue
		}
		l := d.loc.Load()
		if l.parent == d {
			// An anonymous file, or a tree cut off.
			if l.name != "" {
				return l.name, true
			}
			reachable = false
			break
		}
		push(l.name)
		d = l.parent
	}
	if n == len(b) {
		push("")
	}
	return string(b[n:]), reachable
}

// PathString is d_path: what readlink of /proc/PID/fd/N, cwd, exe and maps show. root is the reader's (zero: the
// namespace's root).
func PathString(ctx Context, root, p Path) string {
	s, ok := GetPath(root, p)
	if p.Dentry.Deleted() {
		s += " (deleted)"
	}
	if !ok && root.Ok() {
		s = "(unreachable)" + s
	}
	return s
}

// Getcwd is getcwd(2): ENOENT for a removed directory; "(unreachable)/..." for one outside root.
func Getcwd(ctx Context) (string, error) {
	p := ctx.Cwd()
	if p.Dentry.Deleted() {
		return "", unix.ENOENT
	}
	s, ok := GetPath(ctx.Root(), p)
	if !ok {
		s = "(unreachable)" + s
	}
	if len(s)+1 > unix.PathMax {
		return "", unix.ENAMETOOLONG
	}
	return s, nil
}
