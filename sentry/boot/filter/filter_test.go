package filter

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp"
)

var update = flag.Bool("update", false, "write the programs of built")

// TestBuilt: the programs are what the rules make.
func TestBuilt(t *testing.T) {
	for platform := range Platforms {
		for _, network := range []string{"none", "sandbox", "host"} {
			set := seccomp.NewSyscallRules()
			for _, r := range Rules(platform, network) {
				set.Set(r.NR, r.Args)
			}
			p := seccomp.Program{
				RuleSets: []seccomp.RuleSet{{Rules: set, Action: seccomp.Allow}},
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
			name := "built/" + platform + "-" + network
			if *update {
				if err := os.WriteFile(name, want, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if have, err := built.ReadFile(name); err != nil || !bytes.Equal(have, want) {
				t.Errorf("%s is not what the rules say (%v): go test ./sentry/boot/filter -run TestBuilt -update", name, err)
			}
		}
	}
}
