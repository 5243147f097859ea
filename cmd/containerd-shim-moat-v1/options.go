package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/oci"
	runtimeoptions "github.com/containerd/containerd/pkg/runtimeoptions/v1"
	"github.com/containerd/containerd/protobuf/types"
	"github.com/containerd/typeurl/v2"
	"github.com/pelletier/go-toml"
)

// stateRoot is where the containers' directories are, below one for each of containerd's namespaces: moat --root stateRoot/k8s.io list.
const stateRoot = "/run/containerd/moat"

// taskOptions are what a task's creator asks for: nothing, runc's options, or the file or text that containerd's CRI plugin makes of a runtime's
// options, which is TOML with the names of runc's.
func taskOptions(a *types.Any) (*options.Options, error) {
	o := &options.Options{}
	if a.GetValue() == nil {
		return o, nil
	}
	v, err := typeurl.UnmarshalAny(a)
	if err != nil {
		return nil, fmt.Errorf("options of type %s: %w: %w", a.GetTypeUrl(), err, errdefs.ErrInvalidArgument)
	}
	switch v := v.(type) {
	case *options.Options:
		return v, nil
	case *runtimeoptions.Options:
		text := v.GetConfigBody()
		if f := v.GetConfigPath(); f != "" {
			if text, err = os.ReadFile(f); err != nil {
				return nil, fmt.Errorf("ConfigPath: %w", err)
			}
		}
		// What it does not know is an error, so that a wish is not lost by a slip of the pen.
		if err := toml.NewDecoder(bytes.NewReader(text)).Strict(true).Decode(o); err != nil {
			return nil, fmt.Errorf("runtime options: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		return o, nil
	}
	return nil, fmt.Errorf("options of type %s: want runc's options, or a ConfigPath: %w", a.GetTypeUrl(), errdefs.ErrInvalidArgument)
}

// complete fills in what the options leave open.
func complete(o *options.Options, bundle string) error {
	if o.Root == "" {
		o.Root = stateRoot
	}
	if !o.SystemdCgroup {
		spec, err := oci.ReadSpec(filepath.Join(bundle, oci.ConfigFilename))
		if err != nil {
			return err
		}
		// What a kubelet with the cgroup driver "systemd" asks for: SLICE:PREFIX:NAME, which is no path.
		if l := spec.Linux; l != nil {
			slice, rest, _ := strings.Cut(l.CgroupsPath, ":")
			o.SystemdCgroup = strings.HasSuffix(slice, ".slice") && strings.Count(rest, ":") == 1
		}
	}
	if o.BinaryName != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.BinaryName = filepath.Join(filepath.Dir(self), "moat")
	if _, err := os.Stat(o.BinaryName); err == nil {
		return nil
	}
	p, err := exec.LookPath("moat")
	if err != nil {
		return fmt.Errorf("there is no moat beside the shim (%s), nor in PATH, nor do the runtime's options name one as BinaryName", o.BinaryName)
	}
	o.BinaryName = p
	return nil
}
