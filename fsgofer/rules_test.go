package fsgofer

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp"
)

var update = flag.Bool("update", false, "write the programs of built")

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
			p := seccomp.Program{
				RuleSets: sets,
				Options:  seccomp.ProgramOptions{DefaultAction: seccomp.KillProcess, BadArchAction: seccomp.KillProcess},
			}
			instrs, _, err := p.Build()
			if err != nil {
				t.Fatal(err)
			}
			want, err := binary.Append(nil, binary.LittleEndian, instrs)
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("built/writable=%v,slow=%v", writable, slow)
			if *update {
				if err := os.WriteFile(name, want, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if have, err := built.ReadFile(name); err != nil || !bytes.Equal(have, want) {
				t.Errorf("%s is not what the rules say (%v): go test ./fsgofer -run TestBuilt -update", name, err)
			}
		}
	}
}
