package filter

import (
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp"

	held "moat/tests/built"
)

// TestBuilt: the programs are what the rules make.
func TestBuilt(t *testing.T) {
	for platform := range Platforms {
		for _, network := range []string{"none", "sandbox", "host"} {
			set := seccomp.NewSyscallRules()
			for _, r := range Rules(platform, network) {
				set.Set(r.NR, r.Args)
			}
			held.Hold(t, built, "built/"+platform+"-"+network, []seccomp.RuleSet{{Rules: set, Action: seccomp.Allow}})
		}
	}
}
