// Package built has tests hold seccomp programs that are built ahead of time, and embedded as files, to the rules that they are built from.
package built

import (
	"bytes"
	"embed"
	"encoding/binary"
	"flag"
	"os"
	"testing"

	"gvisor.dev/gvisor/pkg/seccomp"
)

var update = flag.Bool("update", false, "write the programs of built")

// Hold fails t if file name of files is not the program that sets make, where what they do not name kills the process; with -update it writes the file.
func Hold(t *testing.T, files embed.FS, name string, sets []seccomp.RuleSet) {
	t.Helper()
	p := seccomp.Program{RuleSets: sets, Options: seccomp.ProgramOptions{DefaultAction: seccomp.KillProcess, BadArchAction: seccomp.KillProcess}}
	instrs, _, err := p.Build()
	if err != nil {
		t.Fatal(err)
	}
	want, err := binary.Append(nil, binary.LittleEndian, instrs)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if have, err := files.ReadFile(name); err != nil || !bytes.Equal(have, want) {
		t.Errorf("%s is not what the rules say (%v): run this test with -update", name, err)
	}
}
