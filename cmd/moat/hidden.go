package main

import (
	"errors"
	"fmt"
	"os"

	"moat/cmd/moat/container"
	"moat/sentry/boot"
)

// hiddenVerb does what this process is for, if moat itself has started it, and is else nil. alone: it starts no process that is to die with it. These
// verbs are no commands of the command line, so that processes that come with each container do not make one for nothing.
func hiddenVerb() (run func(), alone bool) {
	if len(os.Args) < 2 {
		return nil, false
	}
	switch verb := os.Args[1]; verb {
	case "boot": // the sentry; its standard error is read by the process that started it
		return func() { inNamespace(verb, container.Boot) }, true
	case "gofer":
		return func() { inNamespace(verb, container.Gofer) }, true
	case "keeper": // stands on the host for a process that `moat exec --detach` started
		return func() { os.Exit(container.Keeper()) }, true
	case container.UserVerb: // the helper of --network user
		return func() { os.Exit(report(container.UserHelper(len(os.Args) > 2), 1)) }, false
	}
	return nil, false
}

// inNamespace runs a verb that is the first process of a PID namespace.
func inNamespace(verb string, run func() error) {
	if os.Getpid() != 1 {
		os.Exit(report(errors.New(verb+" is started by moat itself, not by hand"), boot.ExitFailure))
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
