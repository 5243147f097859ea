package workloads

import (
	"testing"
	"time"
)

// TestCgroups: limits of groups made inside are kept to; what needs no controller is compared with the host by tests/conformance (namespaces/cgroup).
func TestCgroups(t *testing.T) {
	need(t, "python3")
	checks(t, 2*time.Minute, `cd /sys/fs/cgroup || exit; fail() { echo "$*"; exit 1; }
py=$(command -v /usr/bin/python3 || command -v python3)
[ "$(stat -f -c %T .)" = cgroup2fs ] && [ "$(cat cgroup.controllers)" = "cpu memory pids" ] && [ -z "$(cat cgroup.subtree_control)" ] || fail the root
mkdir -p a/b; [ ! -e a/pids.max ] || fail a controller that was not passed on; echo '+cpu +memory +pids' > cgroup.subtree_control; [ "$(cat a/pids.max a/memory.max a/cpu.max | tr '\n' ' ')" = "max max max 100000 " ] || fail no limits at first
echo 1000 2>/dev/null > pids.max && fail the limits of the root were set
within() { sh -c 'echo 0 > $0/cgroup.procs && exec "$@"' "$@"; }
echo 5 > a/pids.max; within a/b "$py" -c 'import os, errno, signal
kids = []
try:
    while len(kids) < 20:
        pid = os.fork()
        if not pid: signal.pause()
        kids.append(pid)
except OSError as e: assert e.errno == errno.EAGAIN
for k in kids: os.kill(k, 9)
assert len(kids) == 4, kids' || fail pids.max; echo max > a/pids.max; [ "$(cat a/b/cgroup.procs)" = "" ] || fail left over
echo +memory > a/cgroup.subtree_control; echo 64M > a/memory.max; within a/b "$py" -c 'b = bytearray(20 << 20); import sys; n = int(open("a/memory.current").read()); sys.exit(not (20 << 20 < n < 64 << 20 and n == int(open("a/b/memory.current").read())))' || fail memory.current
within a/b "$py" -c 'b = bytearray(200 << 20)'; [ $? = 137 ] || fail memory.max; grep -q '^oom_kill 1$' a/b/memory.events && grep -q '^oom_kill 1$' a/memory.events || fail memory.events
echo 1 > a/b/memory.oom.group; (within a/b sleep 100; [ $? = 137 ] || echo alone > /tmp/alone) & sleep 0.5; within a/b "$py" -c 'b = bytearray(200 << 20)'; wait; [ ! -e /tmp/alone ] || fail memory.oom.group
[ "$(cat a/memory.current)" = 0 ] || fail memory that nobody has: $(cat a/memory.current); echo -memory > a/cgroup.subtree_control || fail -memory
echo '20000 100000' > a/cpu.max; within a/b "$py" -c 'import time
t, c = time.time(), time.process_time()
while time.time() - t < 3: pass
assert time.process_time() - c < 1.5'  || fail cpu.max; grep -q 'nr_throttled [1-9]' a/cpu.stat || fail cpu.stat
echo 64M > a/memory.max; echo 1M > a/memory.low; echo 5 > a/pids.max; echo 300 > a/cpu.weight; exec 3> a/memory.max; echo -cpu -memory -pids > cgroup.subtree_control || fail no controllers
echo 1M 2>/dev/null >&3 && fail a file of a controller that is gone; exec 3>&-; echo +cpu +memory +pids > cgroup.subtree_control
[ "$(cat a/memory.max a/memory.low a/pids.max a/cpu.max a/cpu.weight | tr '\n' ' ')" = "max 0 max max 100000 100 " ] || fail limits outlive the controller; grep -q '^oom_kill 0$' a/memory.events || fail events outlive it
rmdir a/b a && echo -cpu -memory -pids > cgroup.subtree_control || fail rmdir
for i in $(seq 300); do mkdir g$i || fail mkdir; done; echo +memory 2>/dev/null > cgroup.subtree_control && fail more accounts than there are; [ -z "$(cat cgroup.subtree_control)" ] || fail half; for i in $(seq 300); do rmdir g$i; done
for i in $(seq 600); do mkdir c; echo +memory > cgroup.subtree_control || fail +memory; rmdir c; echo -memory > cgroup.subtree_control; done
echo fine`, "fine")
}
