package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"moat/cmd/moat/install"
)

// installFlags say whose configuration is changed.
type installFlags struct {
	docker, containerd         bool
	dockerConf, containerdConf string
	name, binary               string
	makeDefault                bool
}

func (i *installFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&i.docker, "docker", false, "only Docker's configuration")
	f.BoolVar(&i.containerd, "containerd", false, "only containerd's configuration")
	f.StringVar(&i.dockerConf, "docker-config", "/etc/docker/daemon.json", "Docker's configuration")
	f.StringVar(&i.containerdConf, "containerd-config", "/etc/containerd/config.toml", "containerd's configuration")
	f.StringVar(&i.name, "name", "moat", "name of the runtime")
}

// each calls f for the configurations that are meant: by default those whose directory is there.
func (i *installFlags) each(docker, containerd func(file string) (bool, error)) error {
	done := false
	for _, c := range []struct {
		wanted bool
		file   string
		do     func(string) (bool, error)
		next   string
	}{
		{i.docker, i.dockerConf, docker, "Docker reads it when it gets SIGHUP: kill -HUP $(pidof dockerd), or systemctl reload docker"},
		{i.containerd, i.containerdConf, containerd, "restart containerd to have it read that: systemctl restart containerd"},
	} {
		if !c.wanted {
			_, err := os.Stat(filepath.Dir(c.file))
			if i.docker || i.containerd || err != nil {
				continue
			}
		}
		done = true
		changed, err := c.do(c.file)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", c.file, err)
		case changed:
			fmt.Printf("%s: changed; %s\n", c.file, c.next)
		default:
			fmt.Printf("%s: nothing to change\n", c.file)
		}
	}
	if !done {
		return errors.New("there is neither Docker's nor containerd's configuration; name one by --docker or --containerd")
	}
	return nil
}

func installCommand() *cobra.Command {
	var i installFlags
	cmd := &cobra.Command{
		Use:   "install [flags] [-- RUNTIME-FLAGS]",
		Short: "Make Docker and containerd know moat as a runtime",
		Long: `Enter moat, this very binary, as a runtime in the configurations of Docker and containerd. What is there is kept, and a copy of the file as it
was is left beside it, with .before-moat added to its name. Doing it again changes nothing. containerd gets ` + install.Shim + ` if that lies
beside moat (which should be a directory of containerd's PATH), or else its own shim for runc with moat as its binary. RUNTIME-FLAGS, like
--platform=ptrace, are given to moat by Docker.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if i.binary == "" {
				var err error
				if i.binary, err = os.Executable(); err != nil {
					return err
				}
			}
			return i.each(
				func(f string) (bool, error) { return install.Docker(f, i.name, i.binary, args, i.makeDefault) },
				func(f string) (bool, error) { return install.Containerd(f, i.name, i.binary) })
		},
	}
	i.add(cmd)
	cmd.Flags().StringVar(&i.binary, "binary", "", "path of the runtime (default: this binary)")
	cmd.Flags().BoolVar(&i.makeDefault, "default", false, "make it Docker's default runtime")
	return cmd
}

func uninstallCommand() *cobra.Command {
	var i installFlags
	cmd := &cobra.Command{
		Use:   "uninstall [flags]",
		Short: "Undo install",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return i.each(
				func(f string) (bool, error) { return install.RemoveDocker(f, i.name) },
				func(f string) (bool, error) { return install.RemoveContainerd(f, i.name) })
		},
	}
	i.add(cmd)
	return cmd
}
