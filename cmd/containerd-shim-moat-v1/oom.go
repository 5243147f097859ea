package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/rpc/jsonrpc"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/events"
	cevents "github.com/containerd/containerd/events"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/runtime"
	"github.com/containerd/containerd/runtime/v2/shim"
	"github.com/containerd/log"
)

// watcher waits for a container's processes to be killed for want of memory. The sandbox does that itself, before the host has to.
type watcher struct {
	conn net.Conn
	// exited is closed when the container's first process has ended, done when there is nothing more to come.
	exited, done chan struct{}
}

// maxAnswer bounds what a sandbox, which is not trusted, may say to one question; perEvent how often it may say it.
const (
	maxAnswer = 4096
	perEvent  = time.Second
)

// answers limits what is read of a connection.
type answers struct {
	io.LimitedReader
	net.Conn
}

func (a *answers) Read(p []byte) (int, error) { return a.LimitedReader.Read(p) }

// watch starts to wait for want of memory in container id, whose sandbox's directory is dir; lack is called for each time, at most once a second.
func watch(dir, id string, lack func()) (*watcher, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	// The directory's name may be longer than a socket's address.
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", d.Fd()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "control.sock"), err)
	}
	w := &watcher{conn: conn, exited: make(chan struct{}), done: make(chan struct{})}
	go w.run(id, lack)
	return w, nil
}

func (w *watcher) run(id string, lack func()) {
	defer close(w.done)
	a := &answers{io.LimitedReader{R: w.conn}, w.conn}
	c := jsonrpc.NewClient(a)
	defer c.Close()
	question := struct {
		ID   string
		Seen uint64
	}{ID: id}
	for kills := uint64(0); ; question.Seen = kills {
		a.N = maxAnswer
		if err := c.Call("AwaitOOM", &question, &kills); err != nil || kills <= question.Seen {
			return
		}
		lack()
		select {
		case <-time.After(perEvent):
		case <-w.exited:
		}
	}
}

// finish lets what the sandbox has said before the container's end come through, then hangs up.
func (w *watcher) finish() {
	close(w.exited)
	select {
	case <-w.done:
	case <-time.After(perEvent / 2):
		w.conn.Close()
	}
}

// watchMemory publishes an event each time that the container's processes are killed for want of memory.
func (s *service) watchMemory(c *container) {
	var err error
	c.memory, err = watch(filepath.Join(c.runc.Root, cmp.Or(c.sandbox, c.id)), c.id, func() {
		s.publisher.Publish(namespaces.WithNamespace(context.Background(), s.namespace), runtime.TaskOOMEventTopic, &events.TaskOOM{ContainerID: c.id})
	})
	if err != nil {
		log.L.WithError(err).WithField("id", c.id).Error("want of memory cannot be watched for")
	}
}

// publisher sees the library's events go by.
type publisher struct {
	shim.Publisher
	s *service
}

// Publish implements events.Publisher. That there was no memory is told before that the container has ended, for who asks then why.
func (p *publisher) Publish(ctx context.Context, topic string, e cevents.Event) error {
	if x, ok := e.(*events.TaskExit); ok && x.ID == x.ContainerID {
		p.s.mu.Lock()
		c := p.s.containers[x.ContainerID]
		p.s.mu.Unlock()
		if c != nil && c.memory != nil {
			c.memory.finish()
		}
	}
	return p.Publisher.Publish(ctx, topic, e)
}
