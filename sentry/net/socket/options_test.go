package socket

import (
	"testing"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// FuzzTimeout: SO_RCVTIMEO's bytes never make a negative timeout.
func FuzzTimeout(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, val []byte) {
		var b Base
		_ = b.SetOption(nil, linux.SO_RCVTIMEO, val)
		_ = b.SetOption(nil, linux.SO_LINGER, val)
		if b.RcvTimeout.Load() < 0 {
			t.Fatal(b.RcvTimeout.Load())
		}
	})
}
