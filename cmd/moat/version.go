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

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(*cobra.Command, []string) {
			v := version
			if v == "" {
				v = "development"
				if bi, ok := debug.ReadBuildInfo(); ok {
					for _, s := range bi.Settings {
						if s.Key == "vcs.revision" {
							v = s.Value
						}
					}
				}
			}
			fmt.Printf("moat version %s\nspec: %s\ngo: %s\n", v, specs.Version, runtime.Version())
		},
	}
}
