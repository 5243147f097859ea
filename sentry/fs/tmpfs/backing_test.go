package tmpfs

import (
	"bytes"
	"math/rand"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// memBacking is a Backing of bytes.
type memBacking struct {
	b        []byte
	released int
}

func (m *memBacking) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, error) {
	n, err := dst.CopyOut(m.b[min(off, int64(len(m.b))):])
	return int64(n), err
}
func (m *memBacking) Release(vfs.Context, *vfs.FileDescription) { m.released++ }

// TestBacking compares a file whose pages come from another with a byte slice.
func TestBacking(t *testing.T) {
	e, fs, _ := newEnv(t)
	for seed := range int64(30) {
		r := rand.New(rand.NewSource(seed))
		k := &memBacking{b: make([]byte, 50000+r.Intn(5000))}
		r.Read(k.b)
		model := bytes.Clone(k.b)
		n, _ := fs.NewNode(e, vfs.CreateOptions{Mode: unix.S_IFREG}, "")
		vfs.HoldInode(n)
		SetBacking(n, k, int64(len(k.b)))
		f := &file{r: n.(*regular)}
		for step := range 150 {
			off, l := r.Intn(60000), 1+r.Intn(9000)
			switch r.Intn(5) {
			case 0:
				b := make([]byte, l)
				r.Read(b)
				src := usermem.Bytes(b)
				if r.Intn(3) == 0 {
					// The source ends early: EFAULT after half.
					src = usermem.Single(&usermem.BytesIO{B: b[:l/2+1]}, 0, int64(l))
					b = b[:l/2+1]
				}
				c, _, err := f.Write(e, nil, src, int64(off), 0)
				if err != nil || c != int64(len(b)) {
					t.Fatal("write", c, len(b), err)
				}
				if off+len(b) > len(model) {
					model = append(model, make([]byte, off+len(b)-len(model))...)
				}
				copy(model[off:], b)
			case 1:
				is(t, "truncate", n.SetAttr(e, vfs.SetAttr{Valid: vfs.SetSize, Size: int64(off)}), nil)
				if off <= len(model) {
					model = model[:off:off]
				} else {
					model = append(model, make([]byte, off-len(model))...)
				}
			case 2:
				is(t, "punch", f.Allocate(e, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(l)), nil)
				if off < len(model) {
					clear(model[off:min(len(model), off+l)])
				}
			case 3:
				fr := memmap.FileRange{Start: pageDown(uint64(off)), End: pageDown(uint64(off)) + pageSize}
				at := hostarch.AccessType{Read: true, Write: r.Intn(2) == 0}
				ts, err := f.r.Translate(fr, memmap.FileRange{Start: 0, End: 1 << 20}, at)
				if err == nil {
					for _, x := range ts {
						fs.mem.DecRef(memmap.FileRange{Start: x.Offset, End: x.Offset + x.Source.Length()})
					}
				}
			}
			got := make([]byte, 70000)
			c, err := f.Read(e, nil, usermem.Bytes(got), 0, 0)
			if err != nil || !bytes.Equal(got[:c], model) {
				i := 0
				for i < int(c) && i < len(model) && got[i] == model[i] {
					i++
				}
				t.Fatalf("seed %d step %d: %d bytes, want %d, differ at %d, %v", seed, step, c, len(model), i, err)
			}
		}
		Abandon(n)
		vfs.ReleaseInode(n)
		if k.released != 1 {
			t.Error("backing released", k.released)
		}
	}
}
