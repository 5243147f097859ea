package workloads

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHostile runs guests that attack the platform from inside (testdata/hostile.c): what they do may kill their own process, and nothing else. A witness
// process beside them checks that its own memory, registers, calls and pipes stay right. Each case prints the same whatever died.
func TestHostile(t *testing.T) {
	need(t, "gcc")
	all := os.Getenv("MOAT_LONG") != ""
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	prog := filepath.Join(dir, "hostile")
	if r := command(t, time.Minute, "", "", "gcc", "-O1", "-w", "-static", "-pthread", "-mfsgsbase", "-o", prog, "testdata/hostile.c"); r.code != 0 {
		t.Fatal(r)
	}
	const well = "witness: well, bad 0\n"
	platforms(t, func(t *testing.T, p string) {
		for _, c := range []struct {
			name, step, want string
		}{
			{name: "jump", step: "53", want: "jump: unkillable 0\n"},
			{name: "jump-area", step: "59", want: "jump-area: unkillable 0\n"},
			{name: "window", step: "7", want: "window: unkillable 0\nwindow-table: unkillable 0\n"},
			{name: "store", want: "store: 16 of 16 died\nstore-code: unkillable 0\n"},
			// On trap a guest can keep its thread from answering, and has its stub ended for it after a while.
			{name: "forge", step: "2", want: "forge: unkillable 0\n"},
			{name: "scribble", step: "11", want: "scribble: unkillable 0\n"},
			{name: "unmap", want: "unmap: done\n"},
			{name: "stack", step: "2", want: "stack: unkillable 0\n"},
			{name: "bases", step: "2", want: "bases: unkillable 0\n"},
			{name: "frame", step: "3", want: "frame: unkillable 0\nsigreturn: unkillable 0\n"},
			{name: "entries", want: "entries: unkillable 0\n"},
			{name: "leave", want: "leave: unkillable 0\n"},
		} {
			t.Run(c.name, func(t *testing.T) {
				args := []string{prog, c.name}
				if c.step != "" && !all {
					args = append(args, c.step)
				}
				r := sandbox{platform: p, limit: 15 * time.Minute}.run(t, args...)
				// A call with forged arguments may well be a write to standard output.
				if r.code != 0 || !strings.Contains(r.out, c.want) || !strings.Contains(r.out, well) {
					t.Errorf("want %q\n%v", c.want+well, r)
				}
				for l := range strings.Lines(r.err) {
					if strings.HasPrefix(l, c.name) {
						t.Log(strings.TrimSpace(l))
					}
				}
			})
		}
	})
}
