package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"moat/cmd/moat/container"
)

func specCommand() *cobra.Command {
	var bundle string
	var rootless bool
	cmd := &cobra.Command{
		Use:   "spec [flags]",
		Short: "Write a config.json to begin with",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			file := filepath.Join(bundle, "config.json")
			f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
			if err != nil {
				return fmt.Errorf("cannot write a new %s: %w", file, err)
			}
			defer f.Close()
			e := json.NewEncoder(f)
			e.SetIndent("", "\t")
			return e.Encode(container.ExampleSpec(rootless))
		},
	}
	cmd.Flags().StringVarP(&bundle, "bundle", "b", "", "directory to write it to (default: the current one)")
	cmd.Flags().BoolVar(&rootless, "rootless", false, "for an ordinary user")
	return cmd
}

func featuresCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "features",
		Short: "Print as JSON what of the OCI runtime specification moat does",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v, commit, _ := versions()
			f := container.Features()
			f.Annotations = map[string]string{"moat.version": v, "moat.commit": commit}
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "    ")
			return e.Encode(f)
		},
	}
}
