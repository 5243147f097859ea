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
	// The sandbox dies with the thread that started it (PDEATHSIG): main stays on the first one, which lives as long as the process. Where nothing is
	// started that way, the runtime does without the thread that it makes for this.
	if _, alone := hiddenVerb(); !alone {
		runtime.LockOSThread()
	}
}

// exitCode is an error that is only an exit code: all has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	if run, _ := hiddenVerb(); run != nil {
		run()
	}
	root := &cobra.Command{
		Use:           "moat",
		Short:         "Run Linux containers on a kernel in user space",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	global.add(root)
	root.Version = versionText()
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		err := global.check()
		if err == nil && global.debug && !cmd.Hidden {
			global.message("debug", fmt.Sprintf("%s %q", cmd.CommandPath(), args))
		}
		return err
	}
	root.AddCommand(doCommand(), surfaceCommand(), syscallsCommand(), versionCommand(),
		createCommand(), startCommand(), runCommand(), stateCommand(), listCommand(), killCommand(), deleteCommand(), execCommand(), psCommand(),
		pauseCommand(), resumeCommand(), updateCommand(), eventsCommand(), specCommand(), featuresCommand(), installCommand(), uninstallCommand(), debugCommand())
	for _, name := range []string{"checkpoint", "restore"} {
		root.AddCommand(&cobra.Command{Use: name, Hidden: true, DisableFlagParsing: true, RunE: func(*cobra.Command, []string) error {
			return errors.New(name + ": moat does not save the state of a container yet")
		}})
	}
	cmd, err := root.ExecuteC()
	os.Exit(report(err, failureCode(cmd.Name())))
}

// report says what went wrong, in one line, and returns the exit code: that of an error with its own, else otherwise.
func report(err error, otherwise int) int {
	var code exitCode
	if err == nil {
		return 0
	}
	if errors.As(err, &code) {
		return int(code)
	}
	text := err.Error()
	global.message("error", text)
	fmt.Fprintln(os.Stderr, "moat:", text)
	var start *container.StartError
	var failure *container.Failure
	if errors.As(err, &failure) && failure.Words != failure.Text && global.debug {
		// A goroutine dump, for who debugs.
		fmt.Fprintln(os.Stderr, failure.Words)
	}
	switch {
	case errors.As(err, &failure) && failure.Code > 128:
		return failure.Code
	case otherwise != boot.ExitFailure:
	case errors.As(err, &start):
		return start.Code
	case errors.As(err, &failure):
		return failure.Code
	}
	return otherwise
}
