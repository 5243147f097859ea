package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"moat/sentry/boot"
)

// validID is runc's rule.
func validID(id string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-"
	return id != "" && id != "." && id != ".." && len(id) <= 1024 && strings.Trim(id, letters) == ""
}

// LoadBundle reads an OCI bundle.
func LoadBundle(dir, id string) (*Options, error) {
	if !validID(id) {
		return nil, fmt.Errorf("%q cannot be a container's ID: letters, digits, and any of _+.- only", id)
	}
	dir, err := realDir(dir)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	file := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("bundle: there is no %s", file)
	}
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	s, err := parseSpec(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	o := &Options{Config: boot.Config{Spec: s}}
	if err := o.applySpec(dir); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return o, nil
}

// parseSpec decodes config.json; errors name the field, or the line.
func parseSpec(b []byte) (*specs.Spec, error) {
	var s specs.Spec
	err := json.Unmarshal(b, &s)
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		line := 1 + strings.Count(string(b[:min(int(syntax.Offset), len(b))]), "\n")
		return nil, fmt.Errorf("line %d: not valid JSON: %v", line, syntax)
	case errors.As(err, &typ):
		line := 1 + strings.Count(string(b[:min(int(typ.Offset), len(b))]), "\n")
		return nil, fmt.Errorf("line %d: %s: a JSON %s cannot be a %s", line, typ.Field, typ.Value, typ.Type)
	case err != nil:
		return nil, err
	}
	return &s, nil
}

// applySpec checks what is needed and finds the host's part of the mounts.
func (o *Options) applySpec(dir string) error {
	s := o.Config.Spec
	switch {
	case s.Version == "":
		return errors.New("ociVersion: missing")
	case !strings.HasPrefix(s.Version, "1."):
		return fmt.Errorf("ociVersion: %q is not supported, only 1.x", s.Version)
	case s.Process == nil:
		return errors.New("process: missing")
	case len(s.Process.Args) == 0:
		return errors.New("process.args: missing")
	case !strings.HasPrefix(s.Process.Cwd, "/"):
		return fmt.Errorf("process.cwd: %q is not an absolute path", s.Process.Cwd)
	case s.Root == nil || s.Root.Path == "":
		return errors.New("root.path: missing")
	}
	for i, e := range s.Process.Env {
		if !strings.Contains(e, "=") {
			return fmt.Errorf("process.env[%d]: %q is not NAME=VALUE", i, e)
		}
	}
	root := s.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(dir, root)
	}
	root, err := realDir(root)
	if err != nil {
		return fmt.Errorf("root.path: %w", err)
	}
	if err := o.addTree(root, "/", nil, nil, tree{readOnly: s.Root.Readonly}); err != nil {
		return fmt.Errorf("root.path: %w", err)
	}
	var own []specs.Mount
	for i, m := range s.Mounts {
		if !strings.HasPrefix(m.Destination, "/") {
			return fmt.Errorf("mounts[%d].destination: %q is not an absolute path", i, m.Destination)
		}
		bind, rec := slices.Contains(m.Options, "bind"), slices.Contains(m.Options, "rbind")
		if m.Type != "bind" && !bind && !rec {
			m.Destination = filepath.Clean(m.Destination)
			if m.Type == "tmpfs" && m.Destination == "/dev" {
				// The devices of a container are the sentry's.
				m.Type = "devtmpfs"
			}
			own = append(own, m)
			continue
		}
		src := m.Source
		if !filepath.IsAbs(src) {
			src = filepath.Join(dir, src)
		}
		if src, err = filepath.EvalSymlinks(src); err != nil {
			return fmt.Errorf("mounts[%d].source: %w", i, err)
		}
		t := tree{shared: true, single: !rec, before: len(own), readOnly: slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro")}
		if err := o.addTree(src, filepath.Clean(m.Destination), m.Options, nil, t); err != nil {
			return fmt.Errorf("mounts[%d].source: %w", i, err)
		}
	}
	s.Mounts = own
	return nil
}
