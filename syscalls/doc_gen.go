package syscalls

import (
	"fmt"
	"strings"
)

// Markdown is docs/syscalls.md: the table for readers.
func Markdown() string {
	var b strings.Builder
	var n [3]int
	for _, r := range rows {
		if r != nil {
			n[r.Support]++
		}
	}
	fmt.Fprintf(&b, "# System calls\n\nGenerated from the table in `syscalls/` by `go run ./syscalls/docs`. Of %d calls %d are full, %d partial, %d absent.\n\n", n[0]+n[1]+n[2], n[Full], n[Partial], n[Absent])
	b.WriteString("| number | name | support | what is missing, or why |\n| ---: | --- | --- | --- |\n")
	for _, r := range rows {
		if r != nil {
			fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", r.Nr, r.Name, r.Support, r.Note)
		}
	}
	return b.String()
}
