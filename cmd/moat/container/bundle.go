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

func badID(id string) error {
	return fmt.Errorf("%q cannot be a container's ID: letters, digits, and any of _+.- only", id)
}

// LoadBundle reads an OCI bundle, of a container that is to be among those below root. warn is told of what will not be honoured.
func LoadBundle(root, dir, id string, warn func(string)) (*Options, error) {
	if !validID(id) {
		return nil, badID(id)
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
	s := &specs.Spec{}
	if err := parseJSON(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	o := &Options{Config: boot.Config{ID: id}, Spec: s, ID: id, Bundle: dir, Warn: warn}
	if err := o.applySpec(root, dir); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return o, nil
}

// parseJSON decodes config.json or a part of it; errors name the field, or the line.
func parseJSON(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		line := 1 + strings.Count(string(b[:min(int(syntax.Offset), len(b))]), "\n")
		return fmt.Errorf("line %d: not valid JSON: %v", line, syntax)
	case errors.As(err, &typ):
		line := 1 + strings.Count(string(b[:min(int(typ.Offset), len(b))]), "\n")
		return fmt.Errorf("line %d: %s: a JSON %s cannot be a %s", line, typ.Field, typ.Value, typ.Type)
	}
	return err
}

// CheckProcess checks config.json's process, or one of `moat exec`, and gives it those of the caller's limits that it has none of its own for. warn is told of
// what will not be honoured.
func CheckProcess(p *specs.Process, warn func(string)) error {
	switch {
	case p == nil:
		return errors.New("process: missing")
	case len(p.Args) == 0:
		return errors.New("process.args: missing")
	case !strings.HasPrefix(p.Cwd, "/"):
		return fmt.Errorf("process.cwd: %q is not an absolute path", p.Cwd)
	}
	for i, e := range p.Env {
		if !strings.Contains(e, "=") {
			return fmt.Errorf("process.env[%d]: %q is not NAME=VALUE", i, e)
		}
	}
	if p.Capabilities != nil {
		p.Capabilities = possible(p.Capabilities, warn)
	}
	for _, l := range callersLimits() { // as with runc
		if !slices.ContainsFunc(p.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == l.Type }) {
			p.Rlimits = append(p.Rlimits, l)
		}
	}
	return nil
}

// possible are the capabilities of c that there are, and of the ambient ones those that capabilities(7) allows. The specification wants the others
// logged, and no error.
func possible(c *specs.LinuxCapabilities, warn func(string)) *specs.LinuxCapabilities {
	all := boot.AllCapabilities()
	known := func(names []string) (k []string) {
		for _, n := range names {
			if n = strings.ToUpper(n); slices.Contains(all, n) {
				k = append(k, n)
			} else if warn != nil {
				warn(fmt.Sprintf("process.capabilities: ignored: there is no capability %q", n))
			}
		}
		return k
	}
	r := &specs.LinuxCapabilities{Bounding: known(c.Bounding), Effective: known(c.Effective), Inheritable: known(c.Inheritable), Permitted: known(c.Permitted)}
	for _, n := range known(c.Ambient) {
		if slices.Contains(r.Permitted, n) && slices.Contains(r.Inheritable, n) {
			r.Ambient = append(r.Ambient, n)
		} else if warn != nil {
			warn(fmt.Sprintf("process.capabilities: can't raise ambient capability %s: it is not both permitted and inheritable", n))
		}
	}
	return r
}

// applySpec checks what is needed and finds the host's part of the mounts.
func (o *Options) applySpec(containers, dir string) error {
	s := o.Spec
	switch {
	case s.Version == "":
		return errors.New("ociVersion: missing")
	case !strings.HasPrefix(s.Version, "1."):
		return fmt.Errorf("ociVersion: %q is not supported, only 1.x", s.Version)
	}
	if err := CheckProcess(s.Process, o.Warn); err != nil {
		return err
	}
	if s.Root == nil || s.Root.Path == "" {
		return errors.New("root.path: missing")
	}
	if err := o.applyLinux(containers); err != nil {
		return err
	}
	o.Config.First.Spec, o.Config.First.Terminal = s.Process, s.Process.Terminal
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
		if m.Destination == "" {
			return fmt.Errorf("mounts[%d].destination: missing", i)
		}
		// One that is relative is below the root, says the specification.
		m.Destination = filepath.Join("/", m.Destination)
		isDir := true
		rec := slices.Contains(m.Options, "rbind")
		bind := rec || m.Type == "bind" || slices.Contains(m.Options, "bind")
		if err := o.mapIDs(&m, bind); err != nil {
			return fmt.Errorf("mounts[%d]: %w", i, err)
		}
		if bind {
			if isDir, err = o.addBind(dir, &m, len(own), rec); err != nil {
				return fmt.Errorf("mounts[%d].source: %w", i, err)
			}
		} else {
			if m.Type == "tmpfs" && m.Destination == "/dev" {
				// The devices of a container are the sentry's.
				m.Type = "devtmpfs"
			}
			if _, e := os.Stat(filepath.Join(root, m.Destination)); m.Type == "tmpfs" && errors.Is(e, os.ErrNotExist) &&
				!slices.ContainsFunc(m.Options, func(opt string) bool { return strings.HasPrefix(opt, "mode=") }) {
				// What is made to mount on does not give it its mode.
				m.Options = append(slices.Clone(m.Options), "mode=1777")
			}
			own = append(own, m)
		}
		covered := slices.ContainsFunc(s.Mounts[:i], func(e specs.Mount) bool {
			over := filepath.Join("/", e.Destination)
			return over != "/" && below(m.Destination, over)
		})
		if s.Root.Readonly && !covered {
			o.points = append(o.points, mountPoint{m.Destination, isDir})
		}
	}
	s.Mounts = own
	return nil
}

// mapIDs checks a mount's mappings of IDs: those of the container, if it has the options idmap or ridmap and none of its own.
func (o *Options) mapIDs(m *specs.Mount, bind bool) error {
	own := len(m.UIDMappings)+len(m.GIDMappings) > 0
	if !own && !slices.Contains(m.Options, "idmap") && !slices.Contains(m.Options, "ridmap") {
		return nil
	}
	if l := o.Spec.Linux; l != nil && !own {
		m.UIDMappings, m.GIDMappings = l.UIDMappings, l.GIDMappings
	}
	switch {
	case !bind:
		return errors.New("mappings of IDs are for bind mounts only")
	case os.Geteuid() != 0:
		return errors.New("mappings of IDs for one mount need root")
	case len(m.UIDMappings) == 0 || len(m.GIDMappings) == 0:
		return errors.New("mappings of IDs for one mount: uidMappings and gidMappings are both needed")
	}
	return nil
}

// addBind adds a mount of the host's; the result is whether it is a directory.
func (o *Options) addBind(dir string, m *specs.Mount, before int, rec bool) (bool, error) {
	src := m.Source
	if !filepath.IsAbs(src) {
		src = filepath.Join(dir, src)
	}
	src, err := filepath.EvalSymlinks(src)
	if err != nil {
		return false, err
	}
	fi, err := os.Stat(src)
	if err != nil {
		return false, err
	}
	known := boot.MountOptions()
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(opt string) bool {
		if slices.Contains(known, opt) {
			return false
		}
		o.warn("mounts: %s: ignored: option %q is not for bind mounts", m.Destination, opt)
		return true
	})
	t := tree{shared: true, single: !rec, before: before, ids: m, readOnly: slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro")}
	return fi.IsDir(), o.addTree(src, m.Destination, m.Options, nil, t)
}
