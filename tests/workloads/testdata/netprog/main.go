// netprog is net/http at both ends: "serve ADDR" answers with what it is sent, "call URL" sends from many connections at once and checks.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

func echo(w http.ResponseWriter, r *http.Request) {
	if b, err := io.ReadAll(r.Body); err == nil {
		w.Write(b)
	}
}

func main() {
	if os.Args[1] == "serve" {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(os.Args[2], http.HandlerFunc(echo)))
		os.Exit(1)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for i := range 20 {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			for j := range 20 {
				body := bytes.Repeat([]byte{byte(i), byte(j)}, 1+i*j*100)
				r, err := c.Post(os.Args[2], "application/octet-stream", bytes.NewReader(body))
				if err == nil {
					var got []byte
					if got, err = io.ReadAll(r.Body); err == nil && !bytes.Equal(got, body) {
						err = fmt.Errorf("%d bytes came back as %d", len(body), len(got))
					}
					r.Body.Close()
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("400 answers")
}
