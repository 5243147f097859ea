package ktime

import (
	"sync/atomic"
	"unsafe"
)

// vvarPage is the page that the vDSO reads. The offsets are known to vdso_amd64.s.
type vvarPage struct {
	seq     atomic.Uint32 // odd while it changes
	valid   atomic.Uint32 // 0: make a system call
	baseTSC atomic.Uint64
	mult    atomic.Uint64
	maxAge  atomic.Uint64
	mono    atomic.Int64 // the clocks at baseTSC
	real    atomic.Int64
	boot    atomic.Int64
}

func newVVAR(page []byte) *vvarPage {
	_ = page[unsafe.Sizeof(vvarPage{})-1]
	return (*vvarPage)(unsafe.Pointer(&page[0]))
}

// store publishes p. Preconditions: mu is held.
func (v *vvarPage) store(p *params) {
	v.seq.Add(1)
	v.baseTSC.Store(p.baseTSC)
	v.mult.Store(p.mult)
	v.maxAge.Store(2 * p.maxAge)
	v.mono.Store(p.base)
	v.real.Store(p.base + p.real)
	v.boot.Store(p.base + p.boot)
	v.valid.Store(1)
	v.seq.Add(1)
}

// nanotime is CLOCK_MONOTONIC by the sentry's own vDSO.
//
//go:linkname nanotime runtime.nanotime
func nanotime() int64

// rdtsc reads the time-stamp counter, not before earlier loads are done.
func rdtsc() uint64
