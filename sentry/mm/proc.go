package mm

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"moat/sentry/memmap"
)

// Mapping describes one VMA, for /proc/PID/maps and smaps.
type Mapping struct {
	Range      hostarch.AddrRange
	Perms      hostarch.AccessType
	MaxPerms   hostarch.AccessType
	Private    bool
	Offset     uint64
	Dev, Inode uint64
	// Name is the path, "[heap]" and the like, "[anon:NAME]", or empty.
	Name string
	// Rss and the rest are bytes.
	Rss, Anon, Locked           uint64
	SharedClean, SharedDirty    uint64
	PrivateClean, PrivateDirty  uint64
	GrowsDown, Accounted        bool
	DontFork, DontDump, NoResrv bool
	WipeOnFork, Huge, NoHuge    bool
	Special                     bool
}

// Mappings calls fn with each mapping that ends above from, in ascending order, until fn returns false. Pages are counted if pages is set. fn runs without
// locks, so it may copy to this address space.
func (mm *MemoryManager) Mappings(from hostarch.Addr, pages bool, fn func(*Mapping) bool) {
	const batch = 64
	var ms [batch]Mapping
	var ids [batch]memmap.Identity
	for {
		mm.mu.RLock()
		n := 0
		for it := mm.vmas.Find(uint64(from)); mm.vmas.Ok(it) && n < batch; it = mm.vmas.Next(it) {
			sp := mm.vmas.At(it)
			ms[n] = mm.describe(sp.Start, sp.End, &sp.Val, pages)
			if ids[n] = sp.Val.id; ids[n] != nil {
				ids[n].IncRef()
			}
			n++
		}
		mm.mu.RUnlock()
		more := n == batch
		for i := range n {
			if ids[i] != nil {
				ms[i].Name, ms[i].Dev, ms[i].Inode = ids[i].MappedName(), ids[i].DeviceID(), ids[i].InodeID()
			}
			from = ms[i].Range.End
			if !fn(&ms[i]) {
				more = false
				break
			}
		}
		for i := range n {
			switch id := ids[i].(type) {
			case interface{ Unhold() }:
				id.Unhold() // nobody has detached a segment of System V
			case memmap.Identity:
				id.DecRef()
			}
			ids[i] = nil
		}
		if !more {
			return
		}
	}
}

func (mm *MemoryManager) describe(start, end uint64, v *vma, pages bool) Mapping {
	m := Mapping{
		Range: addrRange(start, end), Perms: v.perms, MaxPerms: v.maxPerms, Private: v.private(), Offset: v.off, Name: v.name,
		GrowsDown: v.flags&vmGrowsDown != 0, Accounted: v.flags&vmAccount != 0,
		DontFork: v.flags&vmDontFork != 0, DontDump: v.flags&vmDontDump != 0, NoResrv: v.flags&vmNoReserve != 0,
		WipeOnFork: v.flags&vmWipeOnFork != 0, Huge: v.flags&vmHuge != 0, NoHuge: v.flags&vmNoHuge != 0, Special: v.flags&vmSpecial != 0,
	}
	l := &mm.layout
	if v.mappable == nil {
		switch {
		case start < pageUp(l.brk) && end > l.startBrk && l.brk > l.startBrk:
			m.Name = "[heap]"
		case start <= l.startStack && l.startStack < end:
			m.Name = "[stack]"
		case v.name != "" && v.name[0] != '[':
			m.Name = "[anon:" + v.name + "]"
		}
	}
	if v.lock != unlocked {
		m.Locked = end - start
	}
	if pages {
		mm.countPages(&m, start, end)
	}
	return m
}

func (mm *MemoryManager) countPages(m *Mapping, start, end uint64) {
	for it := mm.pmas.Find(start); mm.pmas.Ok(it) && mm.pmas.At(it).Start < end; it = mm.pmas.Next(it) {
		sp := mm.pmas.At(it)
		n := min(end, sp.End) - max(start, sp.Start)
		m.Rss += n
		switch {
		case sp.Val.anon && sp.Val.cow:
			m.Anon += n
			m.SharedDirty += n
		case sp.Val.anon:
			m.Anon += n
			m.PrivateDirty += n
		case m.Private:
			m.SharedClean += n
		default:
			m.SharedDirty += n
		}
	}
}

// Line is the mapping's line in /proc/PID/maps, without the newline (fs/proc/task_mmu.c show_map_vma).
func (m *Mapping) Line() string {
	var b strings.Builder
	bit := func(ok bool, c byte) byte {
		if ok {
			return c
		}
		return '-'
	}
	p := byte('s')
	if m.Private {
		p = 'p'
	}
	fmt.Fprintf(&b, "%08x-%08x %c%c%c%c %08x %02x:%02x %d ", uint64(m.Range.Start), uint64(m.Range.End),
		bit(m.Perms.Read, 'r'), bit(m.Perms.Write, 'w'), bit(m.Perms.Execute, 'x'), p, m.Offset,
		unix.Major(m.Dev), unix.Minor(m.Dev), m.Inode)
	if m.Name != "" {
		for b.Len() < 73 {
			b.WriteByte(' ')
		}
		b.WriteString(strings.ReplaceAll(m.Name, "\n", "\\012"))
	}
	return b.String()
}

// VmFlags is smaps' line of two-letter flags.
func (m *Mapping) VmFlags() string {
	var b strings.Builder
	for _, f := range []struct {
		ok   bool
		name string
	}{
		{m.Perms.Read, "rd "}, {m.Perms.Write, "wr "}, {m.Perms.Execute, "ex "}, {!m.Private, "sh "},
		{m.MaxPerms.Read, "mr "}, {m.MaxPerms.Write, "mw "}, {m.MaxPerms.Execute, "me "}, {!m.Private && m.MaxPerms.Write, "ms "},
		{m.GrowsDown, "gd "}, {m.Locked != 0, "lo "}, {m.DontFork, "dc "}, {m.Accounted, "ac "}, {m.NoResrv, "nr "},
		{m.DontDump, "dd "}, {m.WipeOnFork, "wf "}, {m.Huge, "hg "}, {m.NoHuge, "nh "},
	} {
		if f.ok {
			b.WriteString(f.name)
		}
	}
	return b.String()
}

// Stats are an address space's figures in bytes, for statm, status and getrusage.
type Stats struct {
	Total, Peak, Data, Stack, Exec, Locked uint64
	Rss, RssPeak, RssAnon, RssFile, RssShm uint64
	PageTables                             uint64
	Maps                                   int
}

// Stats returns the figures.
func (mm *MemoryManager) Stats() Stats {
	mm.mu.RLock()
	s := Stats{
		Total: mm.stat.total, Peak: mm.stat.peak, Data: mm.stat.data, Stack: mm.stat.stack, Exec: mm.stat.exec, Locked: mm.stat.locked,
		Maps: mm.vmas.Len(),
	}
	mm.mu.RUnlock()
	s.RssAnon, s.RssFile, s.RssShm = uint64(mm.rss.anon.Load()), uint64(mm.rss.file.Load()), uint64(mm.rss.shmem.Load())
	s.Rss = s.RssAnon + s.RssFile + s.RssShm
	s.RssPeak = max(s.Rss, uint64(mm.rss.peak.Load()))
	s.PageTables = pageUp(s.Rss/512+1) + 4*pageSize
	return s
}

// RSSPeak is the largest resident size so far, in bytes (ru_maxrss).
func (mm *MemoryManager) RSSPeak() uint64 { return uint64(mm.rss.peak.Load()) }

// RSS is the resident size in bytes: what the OOM killer looks at.
func (mm *MemoryManager) RSS() uint64 { return uint64(mm.rss.total()) }
