package workloads

import (
	"os"
	"testing"
)

// TestOutOfMemory: past the sandbox's limit its own OOM killer ends a process, the one that Linux would choose; the sandbox lives on.
func TestOutOfMemory(t *testing.T) {
	need(t, "/usr/bin/python3")
	text, err := os.ReadFile("testdata/oom.py")
	if err != nil {
		t.Fatal(err)
	}
	const want = `touch grower 0 largest 9
read grower 0 largest 9
protected: grower 9 largest None
adjusted: grower True small one 9 largest True
score True True
promised: True kills 0
too much: True True kills 0 idle one None
counted True
`
	platforms(t, func(t *testing.T, p string) {
		r := sandbox{platform: p, flags: []string{"--memory=192M"}}.run(t, "/usr/bin/python3", "-c", string(text))
		if r.code != 0 || r.out != want {
			t.Errorf("want %s\n%v", want, r)
		}
		// A first process that is the largest ends the sandbox, as if killed.
		r = sandbox{platform: p, flags: []string{"--memory=64M"}}.run(t, "/usr/bin/python3", "-c", "x = bytearray(40 << 20); y = [bytearray(1 << 20) for _ in range(100)]")
		if r.code != 137 {
			t.Errorf("want 137\n%v", r)
		}
		// A call that gets no memory for more of its buffer does not end short: what has it is killed.
		r = sandbox{platform: p, flags: []string{"--memory=64M"}}.run(t, "/usr/bin/python3", "-c",
			"import mmap; m = [mmap.mmap(-1, 40 << 20) for _ in range(2)]; f = open('/dev/zero', 'rb', 0); print([f.readinto(x) for x in m])")
		if r.code != 137 {
			t.Errorf("a read into more memory than there is: want 137\n%v", r)
		}
	})
}
