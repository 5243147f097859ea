package vdso

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moat/sentry/kernel/ktime"
	"moat/sentry/memory"
)

func TestELF(t *testing.T) {
	b, err := build(text(), -pageSize)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Progs) != 2 || f.Type != elf.ET_DYN {
		t.Errorf("%v", f.FileHeader)
	}
	if names, err := f.DynString(elf.DT_SONAME); err != nil || len(names) != 1 || names[0] != soName {
		t.Logf("soname %v, %v (no section headers)", names, err)
	}
}

// TestHost maps the two pages into a C program on the host, finds the functions by symbol hash and version as a libc does, and compares them with the
// host's clocks.
func TestHost(t *testing.T) {
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	mf, err := memory.New(-1, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer mf.Close()
	v, err := New(mf)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "t")
	if out, err := exec.Command(cc, "-O1", "-o", bin, "testdata/check.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for range 50 {
		ktime.Monotonic() // calibrates
		time.Sleep(5 * time.Millisecond)
	}
	fd, err := unix.Dup(mf.FD())
	if err != nil {
		t.Fatal(err)
	}
	ram := os.NewFile(uintptr(fd), "ram")
	defer ram.Close()
	cmd := exec.Command(bin, fmt.Sprint(v.pages.fr.Start))
	cmd.ExtraFiles = []*os.File{ram}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
}
