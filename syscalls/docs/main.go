// docs writes docs/syscalls.md from the system call table to standard output.
package main

import (
	"fmt"

	"moat/syscalls"
)

func main() { fmt.Print(syscalls.Markdown()) }
