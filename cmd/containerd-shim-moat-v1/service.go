package main

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/pkg/process"
	"github.com/containerd/containerd/pkg/shutdown"
	"github.com/containerd/containerd/protobuf"
	"github.com/containerd/containerd/protobuf/types"
	runctask "github.com/containerd/containerd/runtime/v2/runc/task"
	"github.com/containerd/containerd/runtime/v2/shim"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
)

// service is the library's, but for the requests that moat answers otherwise.
type service struct {
	task.TaskService
	publisher shim.Publisher
	namespace string

	// rest calls trim when there was no request for a while.
	rest *time.Timer

	mu         sync.Mutex
	containers map[string]*container // +checklocks:mu
}

// trim gives the pages of the program, which is larger than what it has to do, back to the host: they come back from the page cache as they are needed.
var trim = func() {}

// restDelay is how long there are no requests before trim is called.
const restDelay = 2 * time.Second

// container is what is known of one beyond what the library knows.
type container struct {
	id   string
	runc *runc.Runc
	// sandbox is the id of the container whose sandbox this one is in; "": it has one of its own.
	sandbox string
	// execs are the ids of Exec that were not deleted; service.mu guards them.
	execs  map[string]bool
	memory *watcher
}

func newService(ctx context.Context, pub shim.Publisher, sd shutdown.Service) (*service, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	s := &service{publisher: pub, namespace: ns, rest: time.AfterFunc(restDelay, trim), containers: make(map[string]*container)}
	s.TaskService, err = runctask.NewTaskService(ctx, &publisher{pub, s}, sd)
	return s, err
}

// RegisterTTRPC is called by the library's server.
func (s *service) RegisterTTRPC(server *ttrpc.Server) error {
	task.RegisterTaskService(server, s)
	return nil
}

// UnaryInterceptor is called by the library's server, and what it returns for each request.
func (s *service) UnaryInterceptor() ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, un ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, m ttrpc.Method) (any, error) {
		s.rest.Reset(restDelay)
		return m(ctx, un)
	}
}

func (s *service) get(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		return nil, errdefs.ToGRPCf(errdefs.ErrNotFound, "container %s was not created", id)
	}
	return c, nil
}

// checkpoints is why one is refused.
func checkpoints(what string) error {
	return errdefs.ToGRPCf(errdefs.ErrNotImplemented, "%s: moat has no checkpoints", what)
}

// Create makes a container.
func (s *service) Create(ctx context.Context, r *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	if r.Checkpoint != "" || r.ParentCheckpoint != "" {
		return nil, checkpoints("create from a checkpoint")
	}
	o, err := taskOptions(r.Options)
	if err == nil {
		err = complete(o, r.Bundle)
	}
	if err == nil {
		r.Options, err = protobuf.MarshalAnyToProto(o)
	}
	if err != nil {
		return nil, errdefs.ToGRPC(err)
	}
	res, err := s.TaskService.Create(ctx, r)
	if err != nil {
		return nil, err
	}
	c := &container{id: r.ID, runc: s.moat(o, r.Bundle), execs: make(map[string]bool)}
	if err := c.readState(); err != nil {
		log.L.WithError(err).WithField("id", c.id).Error("the container's state cannot be read")
	}
	s.watchMemory(c)
	s.mu.Lock()
	s.containers[r.ID] = c
	s.mu.Unlock()
	return res, nil
}

// readState learns what moat has made of the annotations.
func (c *container) readState() error {
	b, err := os.ReadFile(filepath.Join(c.runc.Root, c.id, "state.json"))
	if err != nil {
		return err
	}
	st := struct{ Sandbox *string }{&c.sandbox}
	return json.Unmarshal(b, &st)
}

// moat is the command line of a container with these options.
func (s *service) moat(o *options.Options, bundle string) *runc.Runc {
	return process.NewRunc(o.Root, bundle, s.namespace, o.BinaryName, o.SystemdCgroup)
}

// Exec adds a process to a container.
func (s *service) Exec(ctx context.Context, r *task.ExecProcessRequest) (*types.Empty, error) {
	res, err := s.TaskService.Exec(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[r.ID]; err == nil && c != nil {
		c.execs[r.ExecID] = true
	}
	return res, err
}

// Delete forgets a container that has ended, or a process of Exec.
func (s *service) Delete(ctx context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	res, err := s.TaskService.Delete(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[r.ID]; err == nil && r.ExecID == "" {
		delete(s.containers, r.ID)
	} else if err == nil && c != nil {
		delete(c.execs, r.ExecID)
	}
	return res, err
}

// Pids are the processes that stand on the host for what was started by name, the first process and those of Exec, and those that hold the memory of the
// container's processes and run their code.
func (s *service) Pids(ctx context.Context, r *task.PidsRequest) (*task.PidsResponse, error) {
	c, err := s.get(r.ID)
	if err != nil {
		return nil, err
	}
	pids, err := c.runc.Ps(ctx, r.ID)
	if err != nil {
		return nil, errdefs.ToGRPC(err)
	}
	s.mu.Lock()
	names := append(slices.Sorted(maps.Keys(c.execs)), "")
	s.mu.Unlock()
	res := &task.PidsResponse{}
	for _, name := range names {
		st, err := s.State(ctx, &task.StateRequest{ID: r.ID, ExecID: name})
		if err != nil || st.Pid == 0 || st.Status == tasktypes.Status_STOPPED {
			continue // it has ended meanwhile, or was not started
		}
		p := &tasktypes.ProcessInfo{Pid: st.Pid}
		if name != "" {
			if p.Info, err = protobuf.MarshalAnyToProto(&options.ProcessDetails{ExecID: name}); err != nil {
				return nil, err
			}
		}
		res.Processes = append(res.Processes, p)
	}
	for _, pid := range pids {
		res.Processes = append(res.Processes, &tasktypes.ProcessInfo{Pid: uint32(pid)})
	}
	return res, nil
}

// Checkpoint is refused.
func (s *service) Checkpoint(context.Context, *task.CheckpointTaskRequest) (*types.Empty, error) {
	return nil, checkpoints("checkpoint")
}
