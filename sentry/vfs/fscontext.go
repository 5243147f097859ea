package vfs

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"moat/sentry/usermem"
)

// FSContext is the open file of fsopen(2) and fspick(2): parameters are gathered, and then make a file system or change one.
type FSContext struct {
	FileDefaults
	typ  fsType
	name string

	mu sync.Mutex
	// phase is where it stands. +checklocks:mu
	phase contextPhase
	// sb is what is to change; mnt what was made and is to be mounted. +checklocks:mu
	sb  *super
	mnt *Mount
	// What was set since the last command. +checklocks:mu
	source string
	opts   []string
	ro     *bool
	// log is what read(2) takes, oldest first. +checklocks:mu
	log []string
}

type contextPhase uint8

const (
	createParams contextPhase = iota
	awaitingMount
	reconfigure
	failed
)

// NewFSContext is fsopen(2): ENODEV, EPERM.
func NewFSContext(ctx Context, fstype string) (*FileDescription, error) {
	t, err := typeByName(fstype)
	if err != nil {
		return nil, err
	}
	return NewAnonFile(ctx, "[fscontext]", &FSContext{typ: t, name: fstype}, unix.O_RDWR), nil
}

// PickFSContext is fspick(2): EINVAL.
func PickFSContext(ctx Context, p Path) (*FileDescription, error) {
	if p.Dentry != p.Mount.root {
		return nil, unix.EINVAL
	}
	sb := p.Mount.sb
	sb.refs.Add(1)
	return NewAnonFile(ctx, "[fscontext]", &FSContext{name: sb.fs.Type(), phase: reconfigure, sb: sb}, unix.O_RDWR), nil
}

// Release implements FileImpl.
func (c *FSContext) Release(Context, *FileDescription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mnt != nil {
		c.mnt.DecRef()
	}
	if c.sb != nil {
		c.sb.decRef()
	}
}

// Read implements FileImpl: a message each.
func (c *FSContext) Read(ctx Context, _ *FileDescription, dst usermem.IOSequence, _ int64, _ IOFlags) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.log) == 0 {
		return 0, unix.ENODATA
	}
	m := c.log[0]
	c.log = c.log[1:]
	if dst.NumBytes() < int64(len(m)) {
		return 0, unix.EMSGSIZE
	}
	n, err := dst.CopyOut([]byte(m))
	return int64(n), err
}

// invalid logs why a parameter is not taken: EINVAL. There are 8 messages at most, as on Linux.
// +checklocks:c.mu
func (c *FSContext) invalid(why string) error {
	c.log = append(c.log, "e "+why+"\n")
	c.log = c.log[max(0, len(c.log)-8):]
	return unix.EINVAL
}

// maxOptions bounds what is gathered: a page, as mount(2)'s data.
const maxOptions = 4096

// Set is a parameter: a flag if it has no value.
func (c *FSContext) Set(ctx Context, key string, value *string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != createParams && c.phase != reconfigure {
		return unix.EBUSY
	}
	switch {
	case key == "ro" || key == "rw":
		ro := key == "ro"
		c.ro = &ro
		return nil
	case key == "sync" || key == "async" || key == "dirsync" || key == "lazytime" || key == "nolazytime" || key == "mand" || key == "nomand":
		return nil // nothing is written later than at once
	case key == "source":
		if value == nil {
			return c.invalid("Non-string source")
		} else if c.source != "" {
			return c.invalid("Multiple sources")
		}
		c.source = *value
		return nil
	}
	o := key
	if value != nil {
		o += "=" + *value
	}
	n := len(o)
	for _, x := range c.opts {
		n += len(x) + 1
	}
	if n > maxOptions || strings.Contains(o, ",") {
		return unix.EINVAL
	}
	if c.phase == createParams {
		// Whether the type knows it shows when it is used.
		fs, err := c.typ.make(ctx, c.source, o)
		if err == nil && key == "" {
			fs.Release()
		}
		if err != nil || key == "" {
			return c.invalid(c.name + ": Unknown parameter '" + key + "'")
		}
		fs.Release()
	}
	c.opts = append(c.opts, o)
	return nil
}

// take returns what was set, and forgets it.
// +checklocks:c.mu
func (c *FSContext) take() (data string) {
	data = strings.Join(c.opts, ",")
	c.opts = nil
	return data
}

// Create is FSCONFIG_CMD_CREATE.
func (c *FSContext) Create(ctx Context) error {
	if err := MayMount(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != createParams {
		return unix.EBUSY
	}
	if !c.typ.mayMount(ctx) {
		return unix.EPERM
	}
	m, err := c.typ.instance(ctx, c.source, c.take())
	if err != nil {
		c.phase = failed
		return err
	}
	m.sb.ro.Store(c.ro != nil && *c.ro)
	c.phase, c.mnt, c.sb, c.ro = awaitingMount, m, m.sb, nil
	m.sb.refs.Add(1)
	return nil
}

// Reconfigure is FSCONFIG_CMD_RECONFIGURE.
func (c *FSContext) Reconfigure(ctx Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != reconfigure {
		return unix.EBUSY
	}
	ro := c.ro
	c.ro = nil
	return c.sb.reconfigure(ctx, c.take(), ro)
}

// Mount is fsmount(2): a detached mount, with ST_* flags, of what Create made.
func (c *FSContext) Mount(ctx Context, flags uint32) (*FileDescription, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.mnt
	if m == nil {
		if c.sb != nil {
			return nil, unix.EBUSY
		}
		return nil, unix.EINVAL
	}
	m.flags.Store(flags)
	mountMu.Lock()
	reveals := ns != nil && m.revealsLocked(ns)
	mountMu.Unlock()
	if reveals {
		return nil, unix.EPERM
	}
	c.mnt, c.phase, c.source = nil, reconfigure, ""
	return m.openDetached(ctx), nil
}
