package vdso

import "unsafe"

func textAddr() uintptr

// maxText bounds the length of vdsoText; the last marker ends it.
const maxText = 2048

// text is the sentry's copy of the vDSO's code.
func text() []byte {
	//nolint:govet // the address is the binary's own text
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), textAddr())), maxText)
}
