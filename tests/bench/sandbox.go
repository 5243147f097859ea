package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	caseStart     = "start to first instruction"
	caseRun       = "start, run, end"
	casePSS       = "memory (PSS) of an idle one"
	caseManyStart = "50 at once, all started"
	caseManyPSS   = "50 at once, memory (PSS)"
	many          = 50
)

// sandbox measures the sandbox itself: prog/first.c writes one byte, and waits for its standard input to end.
func (b *bench) sandbox() {
	bin := b.compile("first", "-static")
	b.each([]string{caseStart, casePSS, caseManyStart}, func(r *runner, name string) {
		n := 1
		if name == caseManyStart {
			n = many
		}
		start := time.Now()
		var ones []*one
		var err error
		for range n {
			var o *one
			if o, err = startOne(r.command(bin)); err != nil {
				break
			}
			ones = append(ones, o)
		}
		for _, o := range ones {
			err = errors.Join(err, o.first())
		}
		took := float64(time.Since(start).Nanoseconds())
		pss := 0.0
		if err == nil && name != caseStart {
			time.Sleep(2 * time.Second) // what starts up in the background is done
			for _, o := range ones {
				pss += memory(o.cmd.Process.Pid)
			}
		}
		for _, o := range ones {
			err = errors.Join(err, o.end())
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "\nbench: %s: %s: %v\n", r.name, name, err)
			return
		}
		switch name {
		case caseStart:
			b.all.add(partSandbox, r.name, caseStart, took)
			b.all.add(partSandbox, r.name, caseRun, float64(time.Since(start).Nanoseconds()))
		case casePSS:
			b.all.add(partMemory, r.name, casePSS, pss)
		default:
			b.all.add(partSandbox, r.name, caseManyStart, took)
			b.all.add(partMemory, r.name, caseManyPSS, pss)
		}
	})
}

// one is a running first.c.
type one struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

func startOne(cmd *exec.Cmd) (*one, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	return &one{cmd, in, bufio.NewReader(out)}, cmd.Start()
}

func (o *one) first() error {
	_, err := o.out.ReadByte()
	return err
}

func (o *one) end() error {
	o.in.Close()
	return o.cmd.Wait()
}

// memory is the proportional set size of a process and all below it, in bytes.
func memory(pid int) float64 {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		i := bytes.LastIndexByte(b, ')')
		if err != nil || i < 0 {
			continue
		}
		f := strings.Fields(string(b[i+1:]))
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
		parent, _ := strconv.Atoi(f[1])
		children[parent] = append(children[parent], id)
	}
	total := 0.0
	for todo := []int{pid}; len(todo) > 0; {
		p := todo[0]
		todo = append(todo[1:], children[p]...)
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		for line := range bytes.Lines(b) {
			if f := strings.Fields(string(line)); len(f) == 3 && f[0] == "Pss:" {
				kb, _ := strconv.ParseFloat(f[1], 64)
				total += kb * 1024
			}
		}
	}
	return total
}

// host says which machine it was.
func host() string {
	var u unix.Utsname
	unix.Uname(&u)
	model := "unknown processor"
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(b) {
		if k, v, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
		}
	}
	return fmt.Sprintf("Linux %s, %s", unix.ByteSliceToString(u.Release[:]), model)
}
