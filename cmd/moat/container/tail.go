package container

import (
	"io"
	"os"
	"strings"
	"sync"
)

// tail keeps the beginning and the end of what a process says on its standard error: its last words.
type tail struct {
	mu   sync.Mutex
	head []byte // +checklocks:mu
	rest []byte // +checklocks:mu
	cut  bool   // +checklocks:mu
}

const tailMax = 32 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if k := min(tailMax-len(t.head), n); k > 0 {
		t.head = append(t.head, p[:k]...)
		p = p[k:]
	}
	t.rest = append(t.rest, p...)
	if d := len(t.rest) - tailMax; d > 0 {
		t.rest = append(t.rest[:0], t.rest[d:]...)
		t.cut = true
	}
	return n, nil
}

// load takes in what a process wrote to a file.
func (t *tail) load(path string) {
	if f, err := os.Open(path); err == nil {
		defer f.Close()
		io.Copy(t, io.LimitReader(f, 4*tailMax))
	}
}

// String is everything that was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	sep := ""
	if t.cut {
		sep = "\n[...]\n"
	}
	return string(t.head) + sep + string(t.rest)
}

// Line is the one line that says most: the first of a Go panic or fatal error, else the last.
func (t *tail) Line() string {
	last := ""
	for l := range strings.Lines(t.String()) {
		l = strings.TrimSpace(l)
		for _, p := range []string{"panic: ", "fatal error: ", "runtime: out of memory", "SIGSYS: "} {
			if strings.HasPrefix(l, p) {
				return l
			}
		}
		if l != "" {
			last = l
		}
	}
	return last
}
