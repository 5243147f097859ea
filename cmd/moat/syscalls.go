package main

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"moat/syscalls"
)

func syscallsCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "syscalls",
		Short: "Print which of Linux's system calls moat answers",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			type row struct {
				Number  uintptr `json:"number"`
				Name    string  `json:"name"`
				Support string  `json:"support"`
				Note    string  `json:"note,omitempty"`
			}
			var rows []row
			for _, r := range syscalls.Rows() {
				rows = append(rows, row{r.Nr, r.Name, r.Support.String(), r.Note})
			}
			if asJSON {
				e := json.NewEncoder(os.Stdout)
				e.SetIndent("", "  ")
				return e.Encode(rows)
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			for _, r := range rows {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", r.Number, r.Name, r.Support, r.Note)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
