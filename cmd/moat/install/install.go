// Package install edits the configurations of Docker (daemon.json) and containerd (config.toml). It changes what is moat's and keeps every other
// setting; a copy of the file as it was before the first change stays beside it.
//
// containerd's file is edited as text: moat's part is a block between two marks, so that comments and layout of the rest survive.
package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// backup is added to the name of the copy.
const backup = ".before-moat"

// change replaces the file by what edit makes of it; false if that is the same. A file that is not there is empty.
func change(file string, edit func(old []byte) ([]byte, error)) (bool, error) {
	mode := os.FileMode(0o644)
	old, err := os.ReadFile(file)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return false, err
	}
	if fi, err := os.Stat(file); err == nil {
		mode = fi.Mode().Perm()
	}
	now, err := edit(old)
	if err != nil || bytes.Equal(now, old) {
		return false, err
	}
	if missing {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return false, err
		}
	} else if _, err := os.Lstat(file + backup); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(file+backup, old, mode); err != nil {
			return false, err
		}
	}
	tmp := file + ".moat-tmp"
	if err := os.WriteFile(tmp, now, mode); err != nil {
		os.Remove(tmp)
		return false, err
	}
	return true, os.Rename(tmp, file)
}

// editJSON is change for a JSON object, in which edit changes members in place; it says whether it did.
func editJSON(file string, edit func(top map[string]any) (bool, error)) (bool, error) {
	return change(file, func(old []byte) ([]byte, error) {
		top := map[string]any{}
		if len(bytes.TrimSpace(old)) > 0 {
			d := json.NewDecoder(bytes.NewReader(old))
			d.UseNumber()
			if err := d.Decode(&top); err != nil {
				return nil, fmt.Errorf("not valid JSON: %w", err)
			}
		}
		changed, err := edit(top)
		if err != nil || !changed {
			return old, err
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "    ")
		err = e.Encode(top)
		return b.Bytes(), err
	})
}

// runtimesOf is the member "runtimes".
func runtimesOf(top map[string]any) (map[string]any, error) {
	v, ok := top["runtimes"]
	if !ok {
		return map[string]any{}, nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New(`"runtimes" is not an object`)
	}
	return m, nil
}

// Docker enters a runtime in Docker's configuration; the result is whether that changed anything.
func Docker(file, name, binary string, args []string, makeDefault bool) (bool, error) {
	return editJSON(file, func(top map[string]any) (bool, error) {
		rs, err := runtimesOf(top)
		if err != nil {
			return false, err
		}
		want := map[string]any{"path": binary}
		if len(args) > 0 {
			list := make([]any, len(args))
			for i, a := range args {
				list[i] = a
			}
			want["runtimeArgs"] = list
		}
		changed := false
		if a, b := mustJSON(rs[name]), mustJSON(want); a != b {
			rs[name] = want
			top["runtimes"] = rs
			changed = true
		}
		if makeDefault && top["default-runtime"] != name {
			top["default-runtime"] = name
			changed = true
		}
		return changed, nil
	})
}

func mustJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// RemoveDocker undoes Docker.
func RemoveDocker(file, name string) (bool, error) {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return editJSON(file, func(top map[string]any) (bool, error) {
		rs, err := runtimesOf(top)
		if err != nil {
			return false, err
		}
		_, changed := rs[name]
		if delete(rs, name); len(rs) == 0 {
			delete(top, "runtimes")
		}
		if top["default-runtime"] == name {
			delete(top, "default-runtime")
			changed = true
		}
		return changed, nil
	})
}

func marks(name string) (begin, end string) {
	return "# begin runtime " + name + " (moat install)\n", "# end runtime " + name + "\n"
}

// cut takes moat's block out of text.
func cut(text, name string) (string, error) {
	begin, end := marks(name)
	i := strings.Index(text, begin)
	if i < 0 {
		return text, nil
	}
	j := strings.Index(text[i:], end)
	if j < 0 {
		return "", fmt.Errorf("the line %q has no line %q after it", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return text[:i] + text[i+j+len(end):], nil
}

// Shim is the name of moat's shim for containerd, and RuntimeType what containerd calls it.
const Shim, RuntimeType = "containerd-shim-moat-v1", "io.containerd.moat.v1"

// Containerd enters a runtime in containerd's configuration: moat's shim if it lies beside the binary, or else containerd's shim for runc with moat as
// its binary.
func Containerd(file, name, binary string) (bool, error) {
	return change(file, func(old []byte) ([]byte, error) {
		text, err := cut(string(old), name)
		if err != nil {
			return nil, err
		}
		version, plugin := "", "io.containerd.grpc.v1.cri"
		for l := range strings.Lines(text) {
			if k, v, ok := strings.Cut(l, "="); ok && strings.TrimSpace(k) == "version" && version == "" {
				version = strings.TrimSpace(v)
			}
			if strings.HasPrefix(strings.TrimSpace(l), "[") {
				break // the top level ends
			}
		}
		switch version {
		case "2":
		case "3":
			plugin = "io.containerd.cri.v1.runtime"
		case "":
			if strings.TrimSpace(text) != "" {
				return nil, errors.New("only versions 2 and 3 of the file are supported: it has no version at its top")
			}
			text = "version = 2\n"
		default:
			return nil, fmt.Errorf("version %s of the file is not supported, only 2 and 3", version)
		}
		table := fmt.Sprintf("[plugins.%q.containerd.runtimes.%s]", plugin, name)
		for _, quote := range []string{`"`, `'`} {
			if strings.Contains(text, strings.ReplaceAll(table, `"`, quote)) {
				return nil, fmt.Errorf("there is a runtime %s already that `moat install` did not enter", name)
			}
		}
		begin, end := marks(name)
		block := fmt.Sprintf("%s\n  runtime_type = \"io.containerd.runc.v2\"\n%s.options]\n  BinaryName = %q\n", table, strings.TrimSuffix(table, "]"), binary)
		shim := filepath.Join(filepath.Dir(binary), Shim)
		if _, err := os.Stat(shim); err == nil {
			// Versions that do not know runtime_path look for the shim in PATH.
			block = fmt.Sprintf("%s\n  runtime_type = %q\n  runtime_path = %q\n", table, RuntimeType, shim)
		}
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		return []byte(text + begin + block + end), nil
	})
}

// RemoveContainerd undoes Containerd.
func RemoveContainerd(file, name string) (bool, error) {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return change(file, func(old []byte) ([]byte, error) {
		text, err := cut(string(old), name)
		return []byte(text), err
	})
}
