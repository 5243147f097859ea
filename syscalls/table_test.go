package syscalls

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestEveryNumber: each number that amd64 has, up to the newest, has a row.
func TestEveryNumber(t *testing.T) {
	for nr := range uintptr(472) {
		if nr > 336 && nr < 424 {
			continue // never assigned
		}
		r := rows[nr]
		switch {
		case r == nil:
			t.Errorf("number %d has no row", nr)
		case r.Support != Full && r.Note == "":
			t.Errorf("%s is %v, and nothing says why", r.Name, r.Support)
		case len(strings.Fields(r.Sig)) > 6:
			t.Errorf("%s has %d arguments", r.Name, len(strings.Fields(r.Sig)))
		}
	}
}

var update = flag.Bool("update", false, "write docs/syscalls.md anew")

// TestPage: docs/syscalls.md is what the table says.
func TestPage(t *testing.T) {
	const name = "../docs/syscalls.md"
	if *update {
		if err := os.WriteFile(name, []byte(markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != markdown() {
		t.Error("docs/syscalls.md is old: run `go test ./syscalls -run TestPage -update`")
	}
}

// markdown is docs/syscalls.md: the table for readers.
func markdown() string {
	var b strings.Builder
	var n [3]int
	for _, r := range rows {
		if r != nil {
			n[r.Support]++
		}
	}
	fmt.Fprintf(&b, "# System calls\n\nGenerated from the table in `syscalls/` by `go test ./syscalls -run TestPage -update`. Of %d calls %d are full, %d partial, %d absent.\n\n", n[0]+n[1]+n[2], n[Full], n[Partial], n[Absent])
	b.WriteString("| number | name | support | what is missing, or why |\n| ---: | --- | --- | --- |\n")
	for _, r := range rows {
		if r != nil {
			fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", r.Nr, r.Name, r.Support, r.Note)
		}
	}
	return b.String()
}
