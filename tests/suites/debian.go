package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// install installs Debian's packages, those that are missing.
func install(packages ...string) error {
	if len(packages) == 0 {
		return nil
	}
	var missing []string
	for _, p := range packages {
		out, _ := exec.Command("dpkg-query", "-W", "-f", "${Status}", p).Output()
		if !strings.Contains(string(out), "ok installed") {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := command("", "apt-get", "update", "-q"); err != nil {
		return err
	}
	return command("", append([]string{"apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-q", "-y", "--no-install-recommends"}, missing...)...)
}

// source fetches Debian's source of a package to dir, unless it is there. The lists of sources are apt's in a directory of their own: the system's
// configuration stays as it is.
func source(dir, name string) error {
	if _, err := os.Stat(filepath.Join(dir, "debian")); err == nil {
		return nil
	}
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return err
	}
	m := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)$`).FindSubmatch(b)
	if m == nil {
		return fmt.Errorf("/etc/os-release has no VERSION_CODENAME: not Debian")
	}
	apt := filepath.Join(filepath.Dir(dir), "apt")
	parent := filepath.Dir(dir)
	for _, d := range []string{filepath.Join(apt, "lists", "partial"), filepath.Join(apt, "fetch")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	list := filepath.Join(apt, "sources.list")
	if err := os.WriteFile(list, fmt.Appendf(nil, "deb-src http://deb.debian.org/debian %s main\n", m[1]), 0o644); err != nil {
		return err
	}
	options := []string{"-q", "-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=-", "-o", "Dir::State::Lists=" + filepath.Join(apt, "lists"),
		"-o", "APT::Sandbox::User=root"}
	if err := command(parent, append(append([]string{"apt-get"}, options...), "update")...); err != nil {
		return err
	}
	// The directory of the source has its version in its name.
	fetch := filepath.Join(apt, "fetch", name)
	if err := os.RemoveAll(fetch); err != nil {
		return err
	}
	if err := os.MkdirAll(fetch, 0o755); err != nil {
		return err
	}
	if err := command(fetch, append(append([]string{"apt-get"}, options...), "source", name)...); err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(fetch, "*", "debian"))
	if err != nil || len(dirs) != 1 {
		return fmt.Errorf("apt-get source %s made %d directories with debian in them", name, len(dirs))
	}
	return os.Rename(filepath.Dir(dirs[0]), dir)
}

// once runs a build script in dir, and not again.
func once(dir, script string) error {
	stamp := filepath.Join(dir, ".moat-built")
	if _, err := os.Stat(stamp); err == nil {
		return nil
	}
	if err := command(dir, "sh", "-ec", script); err != nil {
		return err
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// command runs a command in dir. What it prints is kept for the error.
func command(dir string, argv ...string) error {
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir = dir
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out[max(0, len(out)-4000):])
	}
	return nil
}
