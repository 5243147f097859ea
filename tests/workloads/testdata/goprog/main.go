// Command goprog does what Go programs do: goroutines, channels, timers, files, processes, unix sockets, signals.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func main() {
	var wg sync.WaitGroup
	ch := make(chan int)
	for i := range 200 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := 0
			for k := range 10000 {
				s += k % (i + 1)
			}
			time.Sleep(time.Millisecond)
			ch <- s
		}()
	}
	go func() { wg.Wait(); close(ch) }()
	sum := 0
	for s := range ch {
		sum += s
	}
	fmt.Println("goroutines", sum)
	runtime.GC()

	dir, err := os.MkdirTemp("", "go")
	check(err)
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	check(err)
	go func() {
		c, err := l.Accept()
		check(err)
		io.Copy(c, c)
		c.Close()
	}()
	c, err := net.Dial("unix", filepath.Join(dir, "s"))
	check(err)
	fmt.Fprint(c, "echoed")
	c.(*net.UnixConn).CloseWrite()
	b, err := io.ReadAll(c)
	check(err)
	fmt.Println(string(b))

	out, err := exec.Command("sh", "-c", "echo child; exit 3").CombinedOutput()
	fmt.Printf("%s%v\n", out, err)
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR1)
	check(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	fmt.Println(<-sig)
	start := time.Now()
	<-time.After(50 * time.Millisecond)
	fmt.Println(time.Since(start) >= 50*time.Millisecond)
}
