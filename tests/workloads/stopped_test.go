package workloads

import (
	"testing"
	"time"
)

// TestStopped: while a process that has just made many calls is stopped, other processes' timers go on, and it uses no CPU time.
func TestStopped(t *testing.T) {
	need(t, "python3")
	checks(t, 2*time.Minute, `exec python3 -c '
import os, signal, time
pid = os.fork()
if not pid:
    while True:
        for i in range(300): os.stat("/")
        os.kill(os.getpid(), signal.SIGSTOP)
def used():
    return sum(map(int, open(f"/proc/{pid}/stat").read().split()[13:15]))
for i in range(200):
    os.waitpid(pid, os.WUNTRACED); time.sleep(0.002); os.kill(pid, signal.SIGCONT)
os.waitpid(pid, os.WUNTRACED); was = used(); time.sleep(2); os.kill(pid, signal.SIGCONT); os.waitpid(pid, os.WUNTRACED)
ticks = used() - was
os.kill(pid, signal.SIGKILL)
print("fine" if ticks < 100 else f"{ticks} ticks for a stop of 2 s")'`, "fine")
}
