package trap

import (
	"debug/dwarf"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"
)

// TestSpinning: the runtime's count of spinning OS threads is where spinning says.
func TestSpinning(t *testing.T) {
	dir := t.TempDir()
	bin, src := filepath.Join(dir, "x"), filepath.Join(dir, "x.go")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	for r := d.Reader(); ; {
		e, err := r.Next()
		if err != nil || e == nil {
			t.Fatalf("no runtime.schedt: %v", err)
		}
		if e.Tag != dwarf.TagStructType || e.Val(dwarf.AttrName) != "runtime.schedt" {
			continue
		}
		for {
			m, err := r.Next()
			if err != nil || m == nil || m.Tag == 0 {
				t.Fatalf("no nmspinning in runtime.schedt: %v", err)
			}
			if m.Val(dwarf.AttrName) == "nmspinning" {
				if off := m.Val(dwarf.AttrDataMemberLoc).(int64); off != spinningOffset {
					t.Errorf("nmspinning is at %d of runtime.schedt, not %d", off, spinningOffset)
				}
				break
			}
		}
		break
	}
	if uintptr(unsafe.Pointer(spinning()))%4 != 0 {
		t.Error("not aligned")
	}
}
