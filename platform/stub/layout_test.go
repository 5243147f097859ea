package stub

import (
	"testing"
	"unsafe"
)

// TestLayout: the assembly knows these offsets.
func TestLayout(t *testing.T) {
	var c Control
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"GuestSpin", unsafe.Offsetof(c.GuestSpin), 12}, {"Hot", unsafe.Offsetof(c.Hot), 16}, {"RSP", unsafe.Offsetof(c.Hot) + unsafe.Offsetof(c.Hot.RSP), 56},
		{"Signal", unsafe.Offsetof(c.Signal), 64}, {"GSBase", unsafe.Offsetof(c.GSBase), 88}, {"FSBase", unsafe.Offsetof(c.FSBase), 96},
		{"altstack", unsafe.Offsetof(c.altstack), 104}, {"negSelf", unsafe.Offsetof(c.negSelf), OffNegSelf}, {"CPU", unsafe.Offsetof(c.CPU), offCPU}, {"Call", unsafe.Offsetof(c.Call), 140},
		{"Regs", unsafe.Offsetof(c.Regs), 144}, {"R15", unsafe.Offsetof(c.Regs) + unsafe.Offsetof(c.Regs.R15), 232}, {"Opaque", unsafe.Offsetof(c.Opaque), OffOpaque},
		{"Identity", unsafe.Offsetof(c.Identity), OffIdentity}, {"Return", unsafe.Offsetof(c.Return), offReturn}, {"Mask", unsafe.Offsetof(c.Signals), offMask},
		{"Pending", unsafe.Offsetof(c.Signals) + unsafe.Offsetof(c.Signals.Pending), 336},
		{"Lent", unsafe.Offsetof(c.Signals) + unsafe.Offsetof(c.Signals.Actions), 344}, {"Of", unsafe.Offsetof(c.Signals) + unsafe.Offsetof(c.Signals.Actions) + unsafe.Offsetof(c.Signals.Actions.Of), 352},
		{"napFor", unsafe.Offsetof(c.napFor), 2400}, {"napped", unsafe.Offsetof(c.napped), 2416}, {"napSince", unsafe.Offsetof(c.napSince), 2424}, {"napMax", unsafe.Offsetof(c.napMax), 2432},
		{"EFlags", unsafe.Offsetof(c.Regs) + unsafe.Offsetof(c.Regs.EFlags), 0x98},
		{"nap", unsafe.Offsetof(c.nap), 248}, {"wake", unsafe.Offsetof(c.wake), 256}, {"naps", unsafe.Offsetof(Bells{}.naps), offNaps},
		{"tid", unsafe.Offsetof(c.tid), offTID}, {"made", unsafe.Offsetof(replyPage{}.made), 0}, {"ready", unsafe.Offsetof(replyPage{}.ready), 8}, {"name", orderAddr + unsafe.Offsetof(orderPage{}.name), nameAddr}, {"ops", unsafe.Offsetof(orderPage{}.ops), orderBytes},
		{"ack", orderAddr + unsafe.Offsetof(orderPage{}.ack), ackAddr},
		{"part", orderAddr + unsafe.Offsetof(orderPage{}.part), partAddr}, {"cpus", orderAddr + unsafe.Offsetof(orderPage{}.cpus), cpusAddr}, {"size of cpus", unsafe.Sizeof(orderPage{}.cpus), cpusSize},
		{"Nap", unsafe.Offsetof(Bells{}.Nap), 16}, {"Bell", unsafe.Offsetof(Bells{}.Bell), 64}, {"rung", unsafe.Offsetof(replyPage{}.rung), 256},
	} {
		if f.got != f.want {
			t.Errorf("%s is at %d, not %d", f.name, f.got, f.want)
		}
	}
	if replyAddr+replySize != 0x7fff00019000 || tableAddr+pageSize != stubBase+0x4000 {
		t.Error("REPLY_END or CODE_SIZE")
	}
	if unsafe.Sizeof(Bells{}) > pageSize || unsafe.Sizeof(replyPage{}) > replySize || unsafe.Sizeof(c) > pageSize-64 {
		t.Error("too large")
	}
}
