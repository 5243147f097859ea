package container

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

// Privileged reports whether the caller is root of the host; root of a user namespace, as rootless engines are, is an ordinary user there.
var Privileged = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return os.Geteuid() == 0 && (err != nil || strings.Join(strings.Fields(string(b)), " ") == "0 0 4294967295")
})

// mapped reports whether the caller's user namespace has the ID, by its uid_map or gid_map.
func mapped(file string, id uint64) bool {
	b, err := os.ReadFile("/proc/self/" + file)
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		first, _ := strconv.ParseUint(f[0], 10, 32)
		n, _ := strconv.ParseUint(f[2], 10, 32)
		if id >= first && id-first < n {
			return true
		}
	}
	return false
}

// maySetGroups reports whether setgroups(2) is allowed in the caller's user namespace (user_namespaces(7)).
func maySetGroups() bool {
	b, err := os.ReadFile("/proc/self/setgroups")
	return os.Geteuid() == 0 && (err != nil || strings.TrimSpace(string(b)) == "allow")
}
