// Package syscalls is Linux/amd64's system call table: one file per family decodes arguments, calls the sentry and
// encodes the result.
//
// Each family file declares its rows with register in an init function; a number that no row names does not exist. The table is the truth:
// docs/syscalls.md is generated from it.
package syscalls

import (
	"fmt"

	"moat/sentry/kernel"
)

// Support says how much of a call moat answers.
type Support uint8

const (
	// Absent calls answer ENOSYS (or the errno that Linux gives when the feature is not configured).
	Absent Support = iota
	// Partial calls lack what Note says.
	Partial
	// Full calls do what Linux does.
	Full
)

func (s Support) String() string { return [...]string{"absent", "partial", "full"}[s] }

// Row is one system call.
type Row struct {
	Nr      uintptr
	Name    string
	Support Support
	// Note says what is missing, or why the call is absent.
	Note string
	// Sig is the argument signature for strace, one word an argument (see strace.go): "fd ptr size", "path flags:open mode:octal".
	Sig string
	Fn  kernel.SyscallFn
}

// maxNr is one past the largest number of the table.
const maxNr = 480

var rows [maxNr]*Row

// register adds rows; a number given twice, or a call without a function that is not absent, is a bug found at start-up.
func register(rs ...Row) {
	for i := range rs {
		r := &rs[i]
		if r.Nr >= maxNr || rows[r.Nr] != nil {
			panic(fmt.Sprintf("syscalls: number %d (%s) registered twice or out of range", r.Nr, r.Name))
		}
		if r.Support != Absent && r.Fn == nil {
			panic("syscalls: " + r.Name + " has no function")
		}
		rows[r.Nr] = r
	}
}

// full, partial and absent make rows.
func full(nr uintptr, name, sig string, fn kernel.SyscallFn) Row {
	return Row{Nr: nr, Name: name, Support: Full, Sig: sig, Fn: fn}
}

func partial(nr uintptr, name, sig, note string, fn kernel.SyscallFn) Row {
	return Row{Nr: nr, Name: name, Support: Partial, Note: note, Sig: sig, Fn: fn}
}

func absent(nr uintptr, name, why string) Row {
	return Row{Nr: nr, Name: name, Support: Absent, Note: why}
}
