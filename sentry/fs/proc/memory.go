package proc

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"

	"moat/sentry/fs/genfs"
	"moat/sentry/mm"
	"moat/sentry/usermem"
	"moat/sentry/vfs"
)

// maxStrings bounds what is read of a process' arguments or environment.
const maxStrings = 8 << 20

// readMem reads [start, end) of m as a debugger would; what cannot be read ends it.
func readMem(m *mm.MemoryManager, start, end hostarch.Addr) []byte {
	if end <= start {
		return nil
	}
	out := make([]byte, min(uint64(end-start), maxStrings))
	n, _ := m.Force(start, out, false)
	return out[:n]
}

// ofMM makes a file's contents of what fn writes about the address space; it is empty where there is none.
func ofMM(fn func(*mm.MemoryManager, *bytes.Buffer)) func(subject, vfs.Context, *bytes.Buffer) error {
	return func(s subject, _ vfs.Context, b *bytes.Buffer) error {
		if m := s.mm(); m != nil {
			defer m.DecUsers()
			fn(m, b)
		}
		return nil
	}
}

// genCmdline is fs/proc/base.c get_mm_cmdline. A process that overwrote the NUL at the end of its arguments shows one
// string, which may go on into the environment.
func genCmdline(m *mm.MemoryManager, b *bytes.Buffer) {
	a := m.Areas()
	args := readMem(m, a.ArgStart, a.ArgEnd)
	if n := len(args); n == 0 || args[n-1] == 0 {
		b.Write(args)
		return
	}
	if a.EnvStart == a.ArgEnd {
		args = append(args, readMem(m, a.EnvStart, a.EnvEnd)...)
	}
	if i := bytes.IndexByte(args, 0); i >= 0 {
		args = args[:i+1]
	}
	b.Write(args)
}

func genEnviron(m *mm.MemoryManager, b *bytes.Buffer) {
	a := m.Areas()
	b.Write(readMem(m, a.EnvStart, a.EnvEnd))
}

func genAuxv(m *mm.MemoryManager, b *bytes.Buffer) {
	b.Write(m.Auxv())
}

func genMaps(m *mm.MemoryManager, b *bytes.Buffer) {
	m.Mappings(0, false, func(v *mm.Mapping) bool {
		b.WriteString(v.Line())
		b.WriteByte('\n')
		return true
	})
}

// smap prints fs/proc/task_mmu.c __show_smap's figures; rollup has three more and no sizes.
func smap(b *bytes.Buffer, v *mm.Mapping, rollup bool) {
	line := func(name string, n uint64) { fmt.Fprintf(b, "%-16s%8d kB\n", name+":", n>>10) }
	dirty := v.SharedDirty + v.PrivateDirty
	line("Rss", v.Rss)
	line("Pss", v.Rss)
	line("Pss_Dirty", dirty)
	if rollup {
		line("Pss_Anon", v.Anon)
		line("Pss_File", v.Rss-v.Anon)
		line("Pss_Shmem", 0)
	}
	line("Shared_Clean", v.SharedClean)
	line("Shared_Dirty", v.SharedDirty)
	line("Private_Clean", v.PrivateClean)
	line("Private_Dirty", v.PrivateDirty)
	line("Referenced", v.Rss)
	line("Anonymous", v.Anon)
	for _, name := range [...]string{"KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss"} {
		line(name, 0)
	}
	line("Locked", v.Locked)
}

func genSmaps(m *mm.MemoryManager, b *bytes.Buffer) {
	m.Mappings(0, true, func(v *mm.Mapping) bool {
		fmt.Fprintf(b, "%s\nSize:           %8d kB\nKernelPageSize: %8d kB\nMMUPageSize:    %8d kB\n", v.Line(), v.Range.Length()>>10, 4, 4)
		smap(b, v, false)
		fmt.Fprintf(b, "THPeligible:    %8d\nVmFlags: %s\n", 0, v.VmFlags())
		return true
	})
}

func genSmapsRollup(s subject, _ vfs.Context, b *bytes.Buffer) error {
	m := s.mm()
	if m == nil {
		return unix.ESRCH
	}
	defer m.DecUsers()
	var sum mm.Mapping
	first := true
	m.Mappings(0, true, func(v *mm.Mapping) bool {
		if first {
			sum.Range.Start, first = v.Range.Start, false
		}
		sum.Range.End = v.Range.End
		sum.Rss += v.Rss
		sum.Anon += v.Anon
		sum.Locked += v.Locked
		sum.SharedClean += v.SharedClean
		sum.SharedDirty += v.SharedDirty
		sum.PrivateClean += v.PrivateClean
		sum.PrivateDirty += v.PrivateDirty
		return true
	})
	sum.Private = true
	sum.Name = "[rollup]"
	b.WriteString(sum.Line() + "\n")
	smap(b, &sum, true)
	return nil
}

// memInode is /proc/PID/mem.
type memInode struct {
	genfs.File
	s subject
}

func memFile(s subject, ino uint64, perm uint16) vfs.Inode {
	i := &memInode{s: s}
	genfs.InitFile(&i.File, s.f.FS, ino, perm)
	i.Owner = s.owner
	return i
}

// Open implements vfs.Inode: the address space is the one at the time of opening, for good.
func (i *memInode) Open(ctx vfs.Context, _ *vfs.Dentry, _ uint32) (vfs.FileImpl, error) {
	if err := i.s.mayAccess(ctx, unix.EACCES); err != nil {
		return nil, err
	}
	return &openMem{m: i.s.t.MemoryManager()}, nil
}

type openMem struct {
	vfs.FileDefaults
	m *mm.MemoryManager
}

// Seekable implements vfs.FileImpl.
func (*openMem) Seekable() bool { return true }

// Read implements vfs.FileImpl: EIO where nothing can be read.
func (o *openMem) Read(_ vfs.Context, _ *vfs.FileDescription, dst usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, error) {
	return o.copy(dst, off, false)
}

// Write implements vfs.FileImpl.
func (o *openMem) Write(_ vfs.Context, _ *vfs.FileDescription, src usermem.IOSequence, off int64, _ vfs.IOFlags) (int64, int64, error) {
	n, err := o.copy(src, off, true)
	return n, off + n, err
}

func (o *openMem) copy(seq usermem.IOSequence, off int64, write bool) (int64, error) {
	if o.m == nil || !o.m.IncUsersIfAlive() {
		return 0, nil
	}
	defer o.m.DecUsers()
	var done int64
	buf := make([]byte, min(seq.NumBytes(), 64<<10))
	for seq.NumBytes() > 0 {
		b := buf[:min(int64(len(buf)), seq.NumBytes())]
		var n int
		var err error
		if write {
			if n, err = seq.CopyIn(b); n > 0 {
				n, err = o.m.Force(hostarch.Addr(off), b[:n], true)
			}
		} else if n, err = o.m.Force(hostarch.Addr(off), b, false); n > 0 {
			n, err = seq.CopyOut(b[:n])
		}
		done += int64(n)
		off += int64(n)
		if n < len(b) {
			if done == 0 && err != nil {
				return 0, unix.EIO
			}
			break
		}
		seq = seq.DropFirst(int64(n))
	}
	return done, nil
}
