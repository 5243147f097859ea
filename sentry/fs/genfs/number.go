package genfs

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Strip is what was written as C has it, up to a NUL, without white space around it (strstrip).
func Strip(data []byte) string {
	data, _, _ = bytes.Cut(data, []byte{0})
	return strings.Trim(string(data), " \t\n\v\f\r")
}

// Uint is kstrtoull of lib/kstrtox.c: a number of so many bits, with base 0 perhaps after 0x or 0; EINVAL, or ERANGE if it is too large.
func Uint(s string, base, bits int) (uint64, error) {
	s = strings.TrimPrefix(strings.TrimSuffix(s, "\n"), "+")
	if base == 0 {
		base = 10
		if rest, ok := strings.CutPrefix(s, "0"); ok && rest != "" {
			base = 8
			if rest[0]|0x20 == 'x' {
				base, s = 16, rest[1:]
			}
		}
	}
	n, err := strconv.ParseUint(s, base, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, unix.ERANGE
	case err != nil:
		return 0, unix.EINVAL
	}
	return n, nil
}

// Int is kstrtoll, as Uint is kstrtoull.
func Int(s string, base, bits int) (int64, error) {
	digits, neg := strings.CutPrefix(s, "-")
	if neg && strings.HasPrefix(digits, "+") {
		return 0, unix.EINVAL
	}
	n, err := Uint(digits, base, bits)
	switch most := uint64(1) << (bits - 1); {
	case err != nil:
		return 0, err
	case neg && n <= most:
		return -int64(n), nil
	case n < most:
		return int64(n), nil
	}
	return 0, unix.ERANGE
}
