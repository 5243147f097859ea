package tmpfs

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"moat/sentry/kernel/auth"
	"moat/sentry/memory"
	"moat/sentry/vfs"
)

// Options are tmpfs(5)'s mount options. Zero limits mean half the sandbox's memory, as on Linux.
type Options struct {
	Size     uint64 // bytes
	Inodes   uint64
	NoLimits bool // neither of them: the memory file's own limit holds
	Mode     uint16
	UID      auth.KUID
	GID      auth.KGID
}

// FileSystem is one instance.
type FileSystem struct {
	mem  *memory.File
	dev  uint64
	root *directory

	opts      Options
	maxBlocks atomic.Int64 // pages; 0: no limit
	maxInodes atomic.Int64
	blocks    atomic.Int64
	inodes    atomic.Int64
	lastIno   atomic.Uint64
}

// New returns an empty file system whose pages come from mem.
func New(mem *memory.File, o Options) *FileSystem {
	fs := &FileSystem{mem: mem, dev: vfs.NewAnonDev(), opts: o}
	if o.Mode == 0 {
		fs.opts.Mode = 0o1777
	}
	fs.setLimits()
	now := vfs.Background().Now()
	fs.root = &directory{}
	fs.root.init(fs, vfs.CreateOptions{Mode: unix.S_IFDIR | fs.opts.Mode&0o7777, UID: o.UID, GID: o.GID}, now)
	fs.root.setLinks(2, false)
	fs.root.dmu.Lock()
	fs.root.parent = fs.root
	fs.root.dmu.Unlock()
	fs.inodes.Add(1)
	return fs
}

func (fs *FileSystem) setLimits() {
	half := int64(fs.mem.Limit() / 2 / memory.PageSize)
	pick := func(n uint64) int64 {
		switch {
		case fs.opts.NoLimits:
			return 0
		case n == 0:
			return half
		}
		return int64(min(n, 1<<62))
	}
	fs.maxBlocks.Store(pick((fs.opts.Size + memory.PageSize - 1) / memory.PageSize))
	fs.maxInodes.Store(pick(fs.opts.Inodes))
}

// Register makes mount(2) know "tmpfs" (and "ramfs").
func Register(mem *memory.File) {
	mount := func(ctx vfs.Context, _, data string) (vfs.FileSystem, error) {
		c := ctx.Credentials()
		o, err := ParseOptions(c.UserNS, mem, Options{UID: c.FSUID, GID: c.FSGID}, data)
		if err != nil {
			return nil, err
		}
		return New(mem, o), nil
	}
	vfs.RegisterFileSystem("tmpfs", mount)
	vfs.RegisterFileSystem("ramfs", mount)
}

// ParseOptions reads mount(2)'s data, of a caller in ns, into o: EINVAL.
func ParseOptions(ns *auth.UserNamespace, mem *memory.File, o Options, data string) (Options, error) {
	for _, kv := range strings.Split(data, ",") {
		k, v, _ := strings.Cut(kv, "=")
		var err error
		switch k {
		case "size":
			if p, ok := strings.CutSuffix(v, "%"); ok {
				var n uint64
				n, err = strconv.ParseUint(p, 10, 32)
				o.Size = mem.Limit() / 100 * n
			} else {
				o.Size, err = parseSize(v)
			}
		case "nr_blocks":
			o.Size, err = parseSize(v)
			o.Size = min(o.Size, 1<<50) * memory.PageSize
		case "nr_inodes":
			o.Inodes, err = parseSize(v)
		case "mode":
			var n uint64
			n, err = strconv.ParseUint(v, 8, 16)
			o.Mode = uint16(n & 0o7777)
		case "uid":
			var n uint64
			n, err = strconv.ParseUint(v, 10, 32)
			o.UID = ns.MapToKUID(uint32(n))
		case "gid":
			var n uint64
			n, err = strconv.ParseUint(v, 10, 32)
			o.GID = ns.MapToKGID(uint32(n))
		case "", "huge", "mpol", "inode32", "inode64", "noswap", "seclabel", "context", "rootcontext":
		default:
			return o, unix.EINVAL
		}
		if err != nil || uint32(o.UID) == auth.NoID || uint32(o.GID) == auth.NoID {
			return o, unix.EINVAL
		}
	}
	return o, nil
}

// parseSize is memparse: a number with k, m, g, t.
func parseSize(s string) (uint64, error) {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("kmgtp", s[len(s)-1]|0x20); i >= 0 {
			shift = 10 * (i + 1)
			s = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err == nil && n > ^uint64(0)>>shift {
		err = unix.EINVAL
	}
	return n << shift, err
}

// Type implements vfs.FileSystem.
func (fs *FileSystem) Type() string { return "tmpfs" }

// Root implements vfs.FileSystem.
func (fs *FileSystem) Root() vfs.Inode { return fs.root }

// Dev implements vfs.FileSystem.
func (fs *FileSystem) Dev() uint64 { return fs.dev }

// CachePolicy implements vfs.FileSystem.
func (fs *FileSystem) CachePolicy() vfs.CachePolicy { return vfs.CacheForever }

// Sync implements vfs.FileSystem.
func (fs *FileSystem) Sync(vfs.Context) error { return nil }

// Remount implements vfs.Remounter.
func (fs *FileSystem) Remount(ctx vfs.Context, data string) error {
	o, err := ParseOptions(ctx.Credentials().UserNS, fs.mem, fs.opts, data)
	if err != nil {
		return err
	}
	if n := int64((o.Size + memory.PageSize - 1) / memory.PageSize); n > 0 && n < fs.blocks.Load() {
		return unix.EINVAL
	}
	fs.opts.Size, fs.opts.Inodes = o.Size, o.Inodes
	fs.setLimits()
	return nil
}

// MountOptions implements vfs.FileSystem.
func (fs *FileSystem) MountOptions() string {
	var o []string
	if fs.opts.Size != 0 {
		o = append(o, fmt.Sprintf("size=%dk", fs.opts.Size>>10))
	}
	if fs.opts.Inodes != 0 {
		o = append(o, fmt.Sprintf("nr_inodes=%d", fs.opts.Inodes))
	}
	if fs.opts.Mode != 0o1777 {
		o = append(o, fmt.Sprintf("mode=%o", fs.opts.Mode))
	}
	if fs.opts.UID != 0 {
		o = append(o, fmt.Sprintf("uid=%d", fs.opts.UID))
	}
	if fs.opts.GID != 0 {
		o = append(o, fmt.Sprintf("gid=%d", fs.opts.GID))
	}
	return strings.Join(o, ",")
}

// StatFS implements vfs.FileSystem.
func (fs *FileSystem) StatFS(vfs.Context) (linux.Statfs, error) {
	st := linux.Statfs{Type: linux.TMPFS_MAGIC, BlockSize: memory.PageSize, FragmentSize: memory.PageSize, NameLength: linux.NAME_MAX}
	if max := fs.maxBlocks.Load(); max > 0 {
		st.Blocks = uint64(max)
		left := min(max-fs.blocks.Load(), int64(fs.mem.Limit()-min(fs.mem.Limit(), fs.mem.Used()))/memory.PageSize)
		st.BlocksFree = uint64(maxi(0, left))
	} else {
		st.Blocks = fs.mem.Limit() / memory.PageSize
		st.BlocksFree = st.Blocks - min(st.Blocks, fs.mem.Used()/memory.PageSize)
	}
	st.BlocksAvailable = st.BlocksFree
	st.Files = uint64(fs.maxInodes.Load())
	if st.Files == 0 {
		st.Files = 1 << 32
	}
	st.FilesFree = st.Files - min(st.Files, uint64(fs.inodes.Load()))
	return st, nil
}

func maxi(a, b int64) int64 { return max(a, b) }

// Release implements vfs.FileSystem: every page goes.
func (fs *FileSystem) Release() { fs.root.releaseTree() }

// reserve counts n more pages: ENOSPC.
func (fs *FileSystem) reserve(n int64) error {
	if m := fs.maxBlocks.Load(); fs.blocks.Add(n) > m && m > 0 {
		fs.blocks.Add(-n)
		return unix.ENOSPC
	}
	return nil
}

func (fs *FileSystem) unreserve(n int64) { fs.blocks.Add(-n) }

func (fs *FileSystem) newInode() error {
	if m := fs.maxInodes.Load(); fs.inodes.Add(1) > m && m > 0 {
		fs.inodes.Add(-1)
		return unix.ENOSPC
	}
	return nil
}
