package boot

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// user is an entry of the container's /etc/passwd with the user's groups.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// maxDatabase bounds what is read of /etc/passwd and /etc/group.
const maxDatabase = 4 << 20

// lookupUser understands USER[:GROUP], names or numbers. A number need not be in the database.
func (b *container) lookupUser(s string) (*user, error) {
	name, group, hasGroup := strings.Cut(s, ":")
	u := &user{home: "/"}
	found := false
	n, err := strconv.ParseUint(name, 10, 32)
	isNumber := err == nil
	u.uid = uint32(n)
	for _, f := range b.database("/etc/passwd", 6) {
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || f[0] != name && !(isNumber && uint32(id) == u.uid) {
			continue
		}
		gid, _ := strconv.ParseUint(f[3], 10, 32)
		u.uid, u.gid, u.home, name, found = uint32(id), uint32(gid), f[5], f[0], true
		break
	}
	if !found && !isNumber {
		return nil, fmt.Errorf("--user: the container's /etc/passwd has no user %q", name)
	}
	n, err = strconv.ParseUint(group, 10, 32)
	foundGroup := err == nil
	if foundGroup {
		u.gid = uint32(n)
	}
	for _, f := range b.database("/etc/group", 4) {
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			continue
		}
		if hasGroup && f[0] == group {
			u.gid, foundGroup = uint32(id), true
		}
		for _, m := range strings.Split(f[3], ",") {
			if found && m == name && !hasGroup {
				u.groups = append(u.groups, uint32(id))
			}
		}
	}
	if hasGroup && !foundGroup {
		return nil, fmt.Errorf("--user: the container's /etc/group has no group %q", group)
	}
	return u, nil
}

// homeOf is the home directory of a user, as runc looks it up; "/" if the database does not know.
func (b *container) homeOf(uid uint32) string {
	for _, f := range b.database("/etc/passwd", 6) {
		if id, err := strconv.ParseUint(f[2], 10, 32); err == nil && uint32(id) == uid {
			return f[5]
		}
	}
	return "/"
}

// database reads a file of colon-separated fields; lines with fewer than n are left out.
func (b *container) database(path string, n int) (rows [][]string) {
	root := b.ns.Mount.Root()
	defer root.DecRef()
	ctx := inRoot{vfs.Background(), root}
	f, err := vfs.Open(ctx, root, path, vfs.OpenOptions{Flags: unix.O_RDONLY | unix.O_NONBLOCK})
	if err != nil {
		return nil
	}
	defer f.DecRef()
	var text []byte
	buf := make([]byte, 64<<10)
	for len(text) < maxDatabase {
		k, err := f.PRead(ctx, usermem.Bytes(buf), int64(len(text)), 0)
		if k <= 0 || err != nil {
			break
		}
		text = append(text, buf[:k]...)
	}
	for l := range strings.Lines(string(text)) {
		if fs := strings.Split(strings.TrimSuffix(l, "\n"), ":"); len(fs) >= n {
			rows = append(rows, fs)
		}
	}
	return rows
}
