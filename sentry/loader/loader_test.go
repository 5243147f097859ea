package loader

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/platform"
	"moat/sentry/loader/vdso"
	"moat/sentry/memmap"
	"moat/sentry/memory"
	"moat/sentry/mm"
)

type nullPlatform struct{ platform.AddressSpace }

func (nullPlatform) Name() string                 { return "null" }
func (nullPlatform) Reserved() hostarch.AddrRange { return hostarch.AddrRange{} }
func (nullPlatform) SetText(int, hostarch.Addr)   {}
func (nullPlatform) SetName(string)               {}
func (nullPlatform) UserRange() hostarch.AddrRange {
	return hostarch.AddrRange{Start: 0x10000, End: 0x7ffffffff000}
}
func (p nullPlatform) NewAddressSpace() (platform.AddressSpace, error)        { return p, nil }
func (nullPlatform) Close()                                                   {}
func (nullPlatform) Map(hostarch.AddrRange, int, uint64, hostarch.AccessType) {}
func (nullPlatform) Unmap(hostarch.AddrRange)                                 {}
func (nullPlatform) Protect(hostarch.AddrRange, hostarch.AccessType)          {}
func (nullPlatform) Flush() error                                             { return nil }
func (nullPlatform) Settled() bool                                            { return true }
func (nullPlatform) Release()                                                 {}

// memFile is a File whose pages are in the memory file.
type memFile struct {
	*memory.Shared
	data []byte
	refs int
}

func newMemFile(t testing.TB, mf *memory.File, data []byte) *memFile {
	f := &memFile{Shared: memory.NewShared(mf.Root(), uint64(len(data)), "prog", 1, 2), data: data, refs: 1}
	n := (uint64(len(data)) + pageMask) &^ pageMask
	for off := uint64(0); off < n; {
		ts, err := f.Translate(memmap.FileRange{Start: off, End: off + pageSize}, memmap.FileRange{Start: off, End: n}, hostarch.Write)
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range ts {
			fr := memmap.FileRange{Start: tr.Offset, End: tr.Offset + tr.Source.Length()}
			copy(mf.Bytes(fr.Start, fr.Length()), data[tr.Source.Start:])
			mf.DecRef(fr)
			off = tr.Source.End
		}
	}
	return f
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.data).ReadAt(p, off)
}
func (f *memFile) ConfigureMMap(o *memmap.MMapOpts) error {
	o.Mappable, o.Identity = f.Shared, f.Shared
	return nil
}

type env struct {
	mf    *memory.File
	files map[string][]byte
}

func newEnv(t testing.TB) *env {
	mf, err := memory.New(-1, 256<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mf.Close)
	return &env{mf, map[string][]byte{}}
}

func (e *env) open(t testing.TB) Opener {
	return func(path string) (File, error) {
		b, ok := e.files[path]
		if !ok {
			var err error
			if b, err = os.ReadFile(path); err != nil {
				return nil, unix.ENOENT
			}
		}
		return newMemFile(t, e.mf, b), nil
	}
}

func (e *env) load(t testing.TB, path string, argv []string, v VDSO) (*Image, *mm.MemoryManager, Info, error) {
	f, err := e.open(t)(path)
	if err != nil {
		return nil, nil, Info{}, err
	}
	im, err := Prepare(f, path, argv, false, e.open(t))
	if err != nil {
		return nil, nil, Info{}, err
	}
	m, err := mm.New(nullPlatform{}, e.mf, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := im.Load(m, &LoadArgs{Envv: []string{"A=1", "B="}, UID: 7, StackLimit: 8 << 20, VDSO: v})
	im.Release()
	return im, m, info, err
}

func TestLoadDynamic(t *testing.T) {
	e := newEnv(t)
	v, err := vdso.New(e.mf)
	if err != nil {
		t.Fatal(err)
	}
	im, m, info, err := e.load(t, "/bin/true", []string{"true", "x"}, v)
	if err != nil {
		t.Fatal(err)
	}
	if im.interp == nil {
		t.Fatal("no interpreter")
	}
	// The stack, as the program will read it.
	sp := info.StackPointer
	if sp%16 != 0 {
		t.Errorf("stack pointer %#x", sp)
	}
	word := func() uint64 {
		var b [8]byte
		if _, err := m.CopyIn(sp, b[:]); err != nil {
			t.Fatal(err)
		}
		sp += 8
		return binary.LittleEndian.Uint64(b[:])
	}
	str := func(a uint64) string {
		s, err := m.CopyInString(hostarch.Addr(a), 4096)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var got []string
	for n := word(); n > 0; n-- {
		got = append(got, str(word()))
	}
	got = append(got, "|")
	if word() != 0 {
		t.Error("argv has no NULL")
	}
	for p := word(); p != 0; p = word() {
		got = append(got, str(p))
	}
	if s := strings.Join(got, " "); s != "true x | A=1 B=" {
		t.Errorf("stack holds %q", s)
	}
	aux := map[uint64]uint64{}
	for k := word(); k != 0; k = word() {
		aux[k] = word()
	}
	if str(aux[linux.AT_EXECFN]) != "/bin/true" || str(aux[linux.AT_PLATFORM]) != "x86_64" || aux[linux.AT_UID] != 7 {
		t.Errorf("auxv %v", aux)
	}
	var b [4]byte
	for _, a := range []uint64{aux[linux.AT_SYSINFO_EHDR], aux[linux.AT_BASE]} {
		if m.CopyIn(hostarch.Addr(a), b[:]); string(b[:]) != "\x7fELF" {
			t.Errorf("no ELF at %#x", a)
		}
	}
	if m.CopyIn(hostarch.Addr(aux[linux.AT_PHDR]), b[:]); binary.LittleEndian.Uint32(b[:]) != 6 {
		t.Error("AT_PHDR does not point to PT_PHDR")
	}
	m.Mappings(0, true, func(mp *mm.Mapping) bool { t.Log(mp.Line()); return true })
	m.DecUsers()
}

func TestScripts(t *testing.T) {
	e := newEnv(t)
	e.files["/s"] = []byte("#! /bin/true  -a b \t\nrest")
	e.files["/loop"] = []byte("#!/loop\n")
	e.files["/noline"] = []byte("#!/bin/true")
	e.files["/long"] = []byte("#!/" + strings.Repeat("x", 300) + "\n")
	e.files["/blank"] = []byte("#!  \t \n")
	e.files["/nointerp"] = []byte("#!/does/not/exist\n")
	e.files["/text"] = []byte("echo\n")
	e.files["/empty"] = nil
	for path, want := range map[string]string{
		"/s": "/bin/true|-a b|/s|arg", "/noline": "/bin/true|/noline|arg", "/loop": unix.ELOOP.Error(), "/long": unix.ENOEXEC.Error(),
		"/blank": unix.ENOEXEC.Error(), "/nointerp": unix.ENOENT.Error(), "/text": unix.ENOEXEC.Error(), "/empty": unix.ENOEXEC.Error(),
	} {
		im, m, _, err := e.load(t, path, []string{"argv0", "arg"}, nil)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = strings.Join(im.Argv, "|")
			m.DecUsers()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestBudget(t *testing.T) {
	b := NewBudget(8 << 20)
	if b.left != 2<<20 {
		t.Error(b.left)
	}
	if NewBudget(4096).left != argMax || NewBudget(^uint64(0)).left != 6<<20 {
		t.Error("bounds")
	}
	if b.Add(strings.Repeat("x", maxStrlen)) != unix.E2BIG || b.Add(strings.Repeat("x", maxStrlen-1)) != nil {
		t.Error("MAX_ARG_STRLEN")
	}
}

// FuzzLoad feeds arbitrary files to the loader: it must neither panic nor keep memory.
func FuzzLoad(f *testing.F) {
	for _, p := range []string{"/bin/true", "/lib64/ld-linux-x86-64.so.2"} {
		if b, err := os.ReadFile(p); err == nil && len(b) > 4096 {
			f.Add(b[:4096])
		}
	}
	f.Add([]byte("#!/bin/true x\n"))
	f.Add(tinyELF())
	e := newEnv(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		before := e.mf.Used()
		e.files["/fuzz"] = b
		open := func(path string) (File, error) {
			if path == "/fuzz" || len(path)%2 == 0 {
				return newMemFile(t, e.mf, b), nil
			}
			return nil, unix.ENOENT
		}
		file, _ := open("/fuzz")
		im, err := Prepare(file, "/fuzz", []string{"a"}, false, open)
		if err == nil {
			m, err := mm.New(nullPlatform{}, e.mf, nil)
			if err != nil {
				t.Fatal(err)
			}
			im.Load(m, &LoadArgs{Envv: []string{"x"}, StackLimit: 8 << 20})
			im.Release()
			m.DecUsers()
		}
		if e.mf.Used() != before {
			t.Fatalf("%d bytes left", e.mf.Used()-before)
		}
	})
}

// tinyELF is a static program of one segment.
func tinyELF() []byte {
	b := make([]byte, 4096)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 62)
	le.PutUint64(b[24:], 0x400100)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[54:], phdrSize)
	le.PutUint16(b[56:], 1)
	p := b[64:]
	le.PutUint32(p, 1)
	le.PutUint32(p[4:], 7)
	le.PutUint64(p[16:], 0x400000)
	le.PutUint64(p[32:], 0x200)
	le.PutUint64(p[40:], 0x5000)
	le.PutUint64(p[48:], 4096)
	return b
}

var _ io.ReaderAt = (*memFile)(nil)
