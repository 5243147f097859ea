package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = ""

// versions are moat's version, the commit that it was built from, and the specification's version.
func versions() (v, commit, spec string) {
	v, commit = version, "unknown"
	if v == "" {
		v = "development"
	}
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return v, commit, specs.Version
}

// versionText is what comes behind "moat version ", in runc's form, which Docker reads.
func versionText() string {
	v, commit, spec := versions()
	return fmt.Sprintf("%s\ncommit: %s\nspec: %s\ngo: %s", v, commit, spec, runtime.Version())
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(*cobra.Command, []string) { fmt.Println("moat version", versionText()) },
	}
}
