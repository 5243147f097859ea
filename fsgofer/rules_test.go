package fsgofer

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp"

	held "moat/tests/built"
)

// TestBuilt: the programs are what the rules make.
func TestBuilt(t *testing.T) {
	for _, writable := range []bool{false, true} {
		for _, slow := range []bool{false, true} {
			set := seccomp.NewSyscallRules()
			for _, r := range Rules(writable, slow) {
				set.Add(r.NR, r.Args)
			}
			sets := []seccomp.RuleSet{{Rules: set, Action: seccomp.Allow}}
			for _, a := range Answers() {
				set := seccomp.NewSyscallRules()
				set.Add(a.NR, a.Args)
				sets = append(sets, seccomp.RuleSet{Rules: set, Action: seccomp.ReturnError.Code(uint16(a.Errno))})
			}
			held.Hold(t, built, fmt.Sprintf("built/writable=%v,slow=%v", writable, slow), sets)
		}
	}
}
