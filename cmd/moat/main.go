// Command moat runs Linux containers on a kernel of its own, in user space.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
	"moat/sentry/boot"
)

func init() {
	// The sandbox dies with the thread that started it (PDEATHSIG): main stays on the first one, which lives as long as the process.
	runtime.LockOSThread()
}

// exitCode is an error that is only an exit code: all has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	root := &cobra.Command{
		Use:           "moat",
		Short:         "Run Linux containers on a kernel in user space",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(doCommand(), runCommand(), surfaceCommand(), syscallsCommand(), versionCommand(), bootCommand(), goferCommand())
	os.Exit(report(root.Execute()))
}

// report says what went wrong, in one line, and returns the exit code.
func report(err error) int {
	var code exitCode
	var start *container.StartError
	var failure *container.Failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &start):
		fmt.Fprintln(os.Stderr, "moat:", start.Text)
		return start.Code
	case errors.As(err, &failure):
		fmt.Fprintln(os.Stderr, "moat:", failure.Text)
		return failure.Code
	}
	fmt.Fprintln(os.Stderr, "moat:", err)
	return boot.ExitFailure
}
