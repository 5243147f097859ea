package syscalls

import (
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

// TestPage: docs/syscalls.md is what the table says.
func TestPage(t *testing.T) {
	b, err := os.ReadFile("../docs/syscalls.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != Markdown() {
		t.Error("docs/syscalls.md is old: run `go run ./syscalls/docs > docs/syscalls.md`")
	}
}
