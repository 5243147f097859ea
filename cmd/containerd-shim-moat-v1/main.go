// Containerd-shim-moat-v1 lets containerd run containers on moat: it is containerd's shim API version 2, the runtime type io.containerd.moat.v1. containerd
// starts it, one for each pod or lone container, and speaks ttrpc to it.
//
// It is containerd's own shim for runc, which it takes as a library, with `moat` for `runc`: starting and grouping of shims, reaping, standard input and
// output, terminals, events, and the order of a task's life are the library's. What is here is where moat differs:
//
//   - options (options.go): which moat is run, and where the containers' state is;
//   - requests that moat answers otherwise (service.go): the processes of a container, statistics of a container that shares a sandbox, checkpoints;
//   - the socket of a shim that was killed (manager.go);
//   - want of memory (oom.go): it is the sandbox that kills for it, and the host's cgroup knows nothing of it.
//
// This is a module of its own so that containerd's libraries are no part of moat.
package main

import (
	"context"

	"github.com/containerd/containerd/pkg/shutdown"
	"github.com/containerd/containerd/plugin"
	runc "github.com/containerd/containerd/runtime/v2/runc/manager"
	"github.com/containerd/containerd/runtime/v2/shim"
)

// runtimeType is what containerd's configuration calls this; the binary's name follows from it.
const runtimeType = "io.containerd.moat.v1"

func main() {
	plugin.Register(&plugin.Registration{
		Type:     plugin.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugin.EventPlugin, plugin.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			p, err := ic.GetByID(plugin.EventPlugin, "publisher")
			if err != nil {
				return nil, err
			}
			s, err := ic.GetByID(plugin.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			return newService(ic.Context, p.(shim.Publisher), s.(shutdown.Service))
		},
	})
	shim.RunManager(context.Background(), manager{runc.NewShimManager(runtimeType)})
}
