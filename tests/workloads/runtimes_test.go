package workloads

import (
	"testing"
	"time"
)

// bundle makes an OCI bundle, from busybox, in b.
const bundle = `fail() { echo "$*"; exit 1; }
mkdir -p b/rootfs/bin && cp /bin/busybox b/rootfs/bin || fail busybox; for a in sh cat mknod id sleep ls; do ln -s busybox b/rootfs/bin/$a; done
`

// TestRuntimes: other container runtimes inside, with control groups, their device programs and an OOM score.
func TestRuntimes(t *testing.T) {
	need(t, "runc", "crun", "busybox", "python3")
	checks(t, 2*time.Minute, bundle+`
(cd b && runc spec && python3 -c 'import json
c = json.load(open("config.json"))
p = c["process"]
p["terminal"], p["oomScoreAdj"] = False, 7
for s in "bounding", "effective", "permitted": p["capabilities"][s].append("CAP_MKNOD")
r = c["linux"]["resources"]
r["memory"], r["pids"] = {"limit": 64 << 20}, {"limit": 9}
c["root"]["readonly"] = False
p["args"] = ["sh", "-c", "id -u; cat /proc/self/oom_score_adj /sys/fs/cgroup/pids.max; mknod /n c 1 3 && cat /n; mknod /z c 10 229 && cat /z; mknod /p p && echo fifo; exec 2>/dev/null; sleep 1000 & kill -9 $!; exit 3"]
json.dump(c, open("config.json", "w"))') || fail config
for r in runc crun; do
	out=$($r run -b b one 2>&1); c=$?
	[ $c = 3 ] || fail $r: code $c: $out
	[ "$out" = "0
7
9
cat: can't open '/z': Operation not permitted
fifo" ] || fail $r: "$out"
	rm b/rootfs/n b/rootfs/z b/rootfs/p
done
[ -z "$(ls -d /sys/fs/cgroup/*/ 2>/dev/null | grep -v user.slice)" ] || fail left: $(ls -d /sys/fs/cgroup/*/)
echo fine`, "fine")
}

// TestDockerInside: a Docker daemon with its containerd and runc in a sandbox: import, run, exec, build, limits, pause, kill.
func TestDockerInside(t *testing.T) {
	long(t)
	need(t, "dockerd", "docker", "busybox")
	checks(t, 4*time.Minute, bundle+`
mount -t tmpfs tmpfs /mnt && mkdir /mnt/data /mnt/run || fail mount; export DOCKER_HOST=unix:///mnt/run/sock
dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs --data-root /mnt/data --exec-root /mnt/run -H $DOCKER_HOST -p /mnt/run/pid > log 2>&1 & 
for i in $(seq 200); do docker info >/dev/null 2>&1 && break; sleep 0.2; done
tar -C b/rootfs -c . | docker import - box >/dev/null || fail import: $(tail -3 log)
[ "$(docker run --rm --network host box sh -c 'echo one; id -u; mknod /dev/f c 10 229; cat /dev/f' 2>&1)" = "one
0
cat: can't open '/dev/f': Operation not permitted" ] || fail run
docker run -d --name two --network none -m 64m --pids-limit 30 --cpus 0.5 box sleep 1000 >/dev/null || fail run -d
[ "$(docker exec two sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max')" = "67108864
30
50000 100000" ] || fail exec
docker pause two && [ "$(docker inspect -f '{{.State.Status}}' two)" = paused ] && docker unpause two || fail pause
printf 'FROM box\nRUN echo built > /f\nCMD cat /f\n' > Dockerfile; docker build -q --network host -t three -f Dockerfile b/rootfs >/dev/null || fail build
[ "$(docker run --rm --network none three)" = built ] || fail what was built
docker kill two >/dev/null && [ "$(docker inspect -f '{{.State.ExitCode}}' two)" = 137 ] && docker rm two >/dev/null || fail kill
kill $(cat /mnt/run/pid); wait; echo fine`, "fine")
}
