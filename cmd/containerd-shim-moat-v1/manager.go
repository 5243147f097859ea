package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/runtime/v2/shim"
)

// manager starts shims and clears up after those that died, as the library does, which leaves the socket of a shim that was killed.
type manager struct{ shim.Manager }

// Stop clears up after a container whose shim is gone.
func (m manager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	st, err := m.Manager.Stop(ctx, id)
	if wd, e := os.Getwd(); e == nil {
		// The socket is the whole pod's: another shim may serve it by now.
		if a, e := shim.ReadAddress(filepath.Join(filepath.Dir(wd), id, "address")); e == nil && !shim.CanConnect(a) {
			_ = shim.RemoveSocket(a)
		}
	}
	return st, err
}
