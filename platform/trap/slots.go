package trap

import (
	"bytes"
	"encoding/binary"
	"sync"

	"moat/platform/stub"
)

// slots are the pieces of code, one for each rewritten system call, that the window holds. A rewritten call jumps to its slot through the
// window's table. The slot does what the jump replaced (site.lead), makes sure that the GS base is the thread's area, loads RCX with the address that the call returns to (as the
// SYSCALL instruction does) and jumps to stub.CallAddr, or to stub.AnswerAddr if the call may be one that is answered in place. It touches no flags, no stack and no register but RCX, R11 and, where it is known,
// RAX. If GS is the guest's, the slot stops with HLT, and the sentry makes a system call of the general protection fault.
type slots struct {
	window []byte

	mu sync.Mutex
	// sites says what each slot is for.
	// +checklocks:mu
	sites []site
	// free are slots whose text was freed.
	// +checklocks:mu
	free []int
	// +checklocks:mu
	freeTexts []int
	// +checklocks:mu
	numTexts int
}

// site is one rewritten system call.
type site struct {
	text int
	// start is the offset in the text of the first byte that was rewritten, where the call is made again from; ret is where it returns to.
	start, ret uint64
	// nr is the call's number, if the rewritten code sets it: then start is before that.
	nr int64
	// lead is code that the slot begins with.
	lead []byte
}

// probeLen is the length of what stands in each slot, behind lead, before the call begins: the check of GS.
const probeLen = 21

func newSlots(window []byte) *slots {
	s := &slots{window: window, sites: make([]site, 2)} // the first two places in the table lead to callCode and answerCode
	put(window, 0, stub.CallAddr)
	put(window, 8, stub.AnswerAddr)
	return s
}

// NewText implements platform.Rewriter.
func (s *slots) NewText() (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.freeTexts); n > 0 {
		t := s.freeTexts[n-1]
		s.freeTexts = s.freeTexts[:n-1]
		return t, true
	}
	if s.numTexts >= stub.MaxTexts {
		return 0, false
	}
	s.numTexts++
	return s.numTexts - 1, true
}

// FreeText implements platform.Rewriter.
func (s *slots) FreeText(text int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freeTexts = append(s.freeTexts, text)
	for k := range s.sites {
		if k > 1 && s.sites[k].text == text {
			s.sites[k] = site{text: -1}
			s.free = append(s.free, k)
		}
	}
}

// add makes a slot and returns the address of its place in the table.
func (s *slots) add(x site) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := len(s.sites)
	if n := len(s.free); n > 0 {
		k = s.free[n-1]
		s.free = s.free[:n-1]
		s.sites[k] = x
	} else if k < stub.MaxSlots {
		s.sites = append(s.sites, x)
	} else {
		return 0, false
	}
	off := stub.WindowSlots - stub.WindowBase + k*stub.SlotSize
	copy(s.window[off:off+stub.SlotSize], x.code())
	put(s.window, 8*k, uint64(stub.WindowBase+off))
	return uint32(stub.WindowBase + 8*k), true
}

// lookup returns the site whose slot rip is in.
func (s *slots) lookup(rip uint64) (x site, off uint64, ok bool) {
	if rip < stub.WindowSlots || rip >= stub.WindowTexts {
		return x, 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := (rip - stub.WindowSlots) / stub.SlotSize
	if k <= 1 || k >= uint64(len(s.sites)) || s.sites[k].text < 0 {
		return x, 0, false
	}
	return s.sites[k], (rip - stub.WindowSlots) % stub.SlotSize, true
}

// code is the slot's code.
func (x *site) code() []byte {
	le := binary.LittleEndian
	b := append(bytes.Clone(x.lead), 0xf3, 0x48, 0x0f, 0xae, 0xc9) // RDGSBASE RCX
	b = le.AppendUint32(append(b, 0x65, 0x4c, 0x8b, 0x1c, 0x25), stub.OffNegSelf)
	// The line above: MOV R11, GS:[OffNegSelf]
	b = append(b, 0x4a, 0x8d, 0x0c, 0x19) // LEA RCX, [RCX+R11]
	b = append(b, 0xe3, 0x01, 0xf4)       // JRCXZ over the HLT
	load := le.AppendUint32([]byte{0x48, 0x8b, 0x0c, 0x25}, uint32(stub.WindowTexts+8*x.text))
	load = le.AppendUint32(append(load, 0x48, 0x8d, 0x89), uint32(x.ret)) // MOV RCX, [text]; LEA RCX, [RCX+ret]

	enter := bytes.Clone(load)
	if x.nr >= 0 {
		enter = le.AppendUint32(append(enter, 0xb8), uint32(x.nr)) // MOV EAX, nr
	}
	enter = le.AppendUint32(append(enter, 0xff, 0x24, 0x25), stub.WindowBase) // JMP [callCode]

	if x.nr >= 0 && !stub.InPlace(x.nr) {
		return append(b, enter...)
	}
	b = le.AppendUint32(append(b, 0x65, 0x8b, 0x0c, 0x25), stub.OffOpaque) // MOV ECX, GS:[OffOpaque]
	b = append(append(b, 0xe3, byte(len(enter))), enter...)                // JRCXZ answer
	b = append(b, load...)
	if x.nr >= 0 {
		b = le.AppendUint32(append(b, 0xb8), uint32(x.nr))
	}
	return le.AppendUint32(append(b, 0xff, 0x24, 0x25), stub.WindowBase+8) // JMP [answerCode]
}
