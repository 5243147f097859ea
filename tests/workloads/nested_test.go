package workloads

import (
	"testing"
	"time"
)

// Programs that trace, or that make namespaces and are init in them: what they print is what they print on the host.

func TestStrace(t *testing.T) {
	need(t, "strace", "gcc")
	script(t, `
strace -f -o log ls / >/dev/null; echo $?; grep -c '^[0-9]* *execve("/.*/ls", \["ls", "/"\]' log; grep -c '+++ exited with 0 +++' log; grep -c 'openat(AT_FDCWD, "/", O_RDONLY' log
strace -f -e trace=%process,%signal -o log sh -c 'sleep 0 & wait; (kill -USR1 $BASHPID); kill -TERM $$'; echo $?
grep -c '^[0-9]* .*execve(.*) = 0' log; grep -c 'killed by SIGTERM' log; grep -c 'SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED' log
strace -fc -o sum ls / >/dev/null; awk 'NR==1 {print $1, $NF}' sum; grep -c getdents64 sum
cat > th.c <<EOT
#include <pthread.h>
#include <unistd.h>
static void *run(void *a) { write(2, "thread\n", 7); return 0; }
int main(void) { pthread_t t[4]; for (int i = 0; i < 4; i++) pthread_create(t + i, 0, run, 0); for (int i = 0; i < 4; i++) pthread_join(t[i], 0); return 7; }
EOT
gcc -o th th.c -pthread; strace -f -o log ./th; echo $?; grep -c 'write(2, "thread\\n", 7' log; awk '{print $1}' log | sort -u | wc -l
strace -e inject=openat:error=ENOENT:when=1 -o /dev/null cat /etc/hostname >/dev/null 2>&1; echo $?
sleep 60 & p=$!; sleep 0.2; timeout -s INT 1 strace -o log -p $p; kill $p; grep -c -e nanosleep -e restart_syscall log
strace -k true >/dev/null 2>&1; echo $?; strace -y -e trace=close -o log cat /etc/passwd >/dev/null; grep -c 'close(3</etc/passwd>)' log`)
}

func TestGDB(t *testing.T) {
	need(t, "gdb", "gcc")
	scriptFor(t, 3*time.Minute, `
cat > p.c <<EOT
#include <signal.h>
#include <stdio.h>
#include <pthread.h>
#include <unistd.h>
#include <sys/wait.h>
int sum; volatile int watched;
int add(int a) { sum += a; return sum; }
static void *run(void *a) { return (void *)(long)add(1); }
int main(int argc, char **argv) {
	pthread_t t; void *r;
	for (int i = 0; i < 3; i++) add(i);
	watched = 5;
	pthread_create(&t, 0, run, 0); pthread_join(t, &r);
	if (!fork()) _exit(3);
	wait(0);
	printf("sum %d\n", sum); fflush(stdout);
	if (argc > 1) raise(SIGSEGV);
	return 4;
}
EOT
gcc -g -O0 -o p p.c -pthread; export DEBUGINFOD_URLS=
g() { gdb -nx -batch -iex 'set startup-with-shell off' "$@" 2>&1 | sed -E 's/0x[0-9a-f]+/ADDR/g; s/(LWP|process|Thread) [0-9ADR]+/\1/g; s/ {2,}/  /g; s/(Using host|\[New|\[Switching|\[Detaching).*//; /^\[Thread/d; /^warning/d; /^$/d'; }
g -ex run ./p
g -ex run -ex bt --args ./p crash
g -ex 'break add' -ex run -ex bt -ex 'print a' -ex cont -ex 'print a' -ex finish -ex 'set var sum=100' -ex 'delete' -ex cont ./p
g -ex 'break main' -ex run -ex 'stepi' -ex next -ex step -ex 'info threads' -ex 'print $rip == (unsigned long)&main' -ex 'x/i $rip' -ex kill ./p | grep -v -e '^=>' 
g -ex 'set can-use-hw-watchpoints 0' -ex 'break main' -ex run -ex 'watch watched' -ex cont -ex 'print watched' -ex 'kill' ./p
g -ex 'catch syscall write' -ex run -ex 'print $rax' -ex cont -ex 'print $rax' -ex kill ./p | grep -v '^#'
g -ex 'set follow-fork-mode child' -ex run ./p | grep exited
g -ex 'break add' -ex run -ex 'print add(50)' -ex 'call (int)getppid() > 0' -ex 'generate-core-file core' -ex kill ./p | grep -v -e '^Saved' ; [ -s core ] && g -ex 'print argc' -ex up -ex 'print argc' ./p core | tail -1
./p & sleep 100 & q=$!; g -p $q -ex 'info inferiors' -ex detach /bin/sleep | grep -c 'sleep'; kill $q`)
}

// nested is what runs in new namespaces, in a shell function "as" that is to become somebody first.
const nested = `
as bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all -- sh -c 'id -u; echo $$; set -- /proc/[0-9]*; echo $#; touch /x; touch /etc/x; ls /dev | sort; cat /proc/sys/kernel/hostname >/dev/null; ip -br link 2>/dev/null | cut -c1-2' 2>&1
as bwrap --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp --dir /run/user --bind . /w --chdir /w --unshare-user --uid 77 --gid 88 --unshare-pid --unshare-ipc --unshare-uts --hostname inner --unshare-cgroup-try --die-with-parent --new-session --setenv A b --clearenv --setenv PATH /usr/bin sh -c 'id; hostname; env | sort | head -3; pwd; find / -maxdepth 1 | sort; echo x > new; cat new; cat /proc/self/uid_map | tr -s " "; cut -d" " -f5,6 /proc/self/mountinfo | sort | grep -v -e ^/usr/ -e ^/w/ -e ^/proc/' 2>&1
rm -f new
as bwrap --bind / / --dev-bind /dev /dev --unshare-pid --as-pid-1 sh -c 'echo $$; exit 5' 2>&1; echo $?
as bwrap --ro-bind / / --tmpfs /tmp --remount-ro /tmp sh -c 'touch /tmp/x' 2>&1; echo $?
echo data | as bwrap --ro-bind / / --file 0 /tmp/none true 2>&1; echo data | as bwrap --ro-bind / / --tmpfs /tmp --perms 0640 --file 0 /tmp/f sh -c 'cat /tmp/f; stat -c %a /tmp/f' 2>&1
echo data | as bwrap --ro-bind / / --tmpfs /tmp --ro-bind-data 0 /tmp/g sh -c 'cat /tmp/g; echo y > /tmp/g' 2>&1
as bwrap --ro-bind / / --proc /proc --unshare-all --json-status-fd 1 --sync-fd 2 true | grep -o -e '"child-pid"' -e '"exit-code": [0-9]*'
as bwrap --ro-bind / / --unshare-all --cap-drop ALL sh -c 'grep Cap /proc/self/status | tr -d "\t"; grep NoNewPrivs /proc/self/status | tr -d "\t"' 2>&1
as bwrap --ro-bind / / --unshare-user --unshare-net sh -c 'mount -o remount,bind,rw / 2>&1; umount /proc 2>&1' | sed 's/.*: //'
as bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all sh -c 'id -u; echo $$' 2>&1
as unshare -Urmpf sh -c 'id -u; mount -t proc proc /proc && set -- /proc/[0-9]*; echo $#; mount -t tmpfs t /mnt && echo x > /mnt/f && cat /mnt/f; umount /mnt; hostname x 2>&1' 2>&1
as unshare -Urmpf --mount-proc sh -c 'echo $$; set -- /proc/[0-9]*; echo $#; cat /proc/self/setgroups; tr -s " " < /proc/self/gid_map' 2>&1
as unshare -Urn sh -c 'ip link set lo up && ping -c1 -w5 127.0.0.1 >/dev/null && echo pong' 2>&1
as unshare -Uruimpf --kill-child sh -c 'hostname box; hostname; ipcs -q | wc -l; unshare -m sh -c "mount -t tmpfs t /tmp; touch /tmp/a; ls /tmp"' 2>&1
as unshare -Urm --propagation private sh -c 'mkdir -p /tmp/nr$PPID; mount -t tmpfs t /tmp/nr$PPID; cd /tmp/nr$PPID; mkdir old; mkdir usr; mount --rbind /usr usr; ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/lib64 lib64; pivot_root . old; cd /; umount -l old; rmdir old; echo *' 2>&1`

// TestNestedUser and TestNestedRoot: containers inside, by bubblewrap and unshare(1), without privileges and with those of root.
func TestNestedUser(t *testing.T) {
	need(t, "bwrap", "unshare", "setpriv", "ip", "ping")
	script(t, `d=$(mktemp -d /tmp/nested.XXXXXX); chmod 777 $d; cd $d; trap "rm -r $d" EXIT; as() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }`+nested)
}

func TestNestedRoot(t *testing.T) {
	need(t, "bwrap", "unshare", "ip", "ping")
	script(t, `as() { "$@"; }`+nested)
}

// TestInits: small init programs, as PID 1 of a namespace of their own.
func TestInits(t *testing.T) {
	need(t, "tini", "s6-svscan", "unshare")
	script(t, `
unshare -pf --mount-proc tini -- sh -c 'echo $$; exit 3'; echo $?
unshare -pf --mount-proc tini -g -- sh -c 'kill -TERM $$'; echo $?
unshare -pf --mount-proc tini -- sh -c '(sleep 0.2; echo orphan >&2) & (sleep 0.1 &) ; exec sleep 0.5' 2>&1; echo $?
tini -s -- sh -c '(sleep 0.1 & sleep 0.1 &); sleep 0.4; ps --ppid $PPID -o stat= | grep -c Z'; tini -s -w -p SIGTERM -- true; echo $?
mkdir -p scan/one scan/two/log log
ran() { for i in $(seq 200); do [ $(wc -l < ran) = $1 ] && break; sleep 0.05; done; wc -l < ran; } # a service is up before its script has said so
printf '#!/bin/sh\necho up >> %s/ran\nexec sleep 1000\n' $PWD > scan/one/run
printf '#!/bin/sh\nexec 2>&1\necho logged line\nexec sleep 1000\n' > scan/two/run
printf '#!/bin/sh\nexec s6-log -b n20 s1000000 %s/log\n' $PWD > scan/two/log/run
chmod +x scan/*/run scan/two/log/run
unshare -pf --mount-proc sh -c 'exec s6-svscan -t0 scan' & 
for i in $(seq 100); do [ -s ran ] && grep -q logged log/current 2>/dev/null && s6-svok scan/one && break; sleep 0.05; done
s6-svstat -o up,wantedup,ready scan/one; cat log/current ran
s6-svc -wD -d scan/one; s6-svstat -o up scan/one; s6-svc -wU -u -T 5000 scan/one 2>/dev/null || s6-svc -wu -u scan/one; s6-svstat -o up scan/one; ran 2
s6-svc -wr -r scan/one; ran 3; s6-svscanctl -t scan; wait; echo ended
s6-setsid sh -c 'echo in session'; s6-softlimit -o 20 sh -c 'ulimit -n'; s6-envuidgid nobody sh -c 'echo $UID_ $GID'; s6-setuidgid nobody id -u; s6-setlock -n lk echo locked; echo a | s6-tai64n | wc -c; s6-applyuidgid -u 5 -g 6 id -g`)
}

// TestRunAs: changing who one is, with capabilities, limits and bounding sets.
func TestRunAs(t *testing.T) {
	need(t, "runuser", "setpriv", "su", "capsh")
	script(t, `
runuser -u nobody -- id; runuser -u daemon -- sh -c 'echo $HOME $$ | cut -d" " -f1'; runuser -l daemon -s /bin/sh -c 'id; pwd; echo $USER $LOGNAME'; su daemon -s /bin/sh -c id
setpriv --reuid nobody --regid nogroup --init-groups --inh-caps=-all --bounding-set=-all --no-new-privs sh -c 'id; grep -e Cap -e NoNew /proc/self/status | tr -d "\t"'
setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps +net_bind_service,+chown --ambient-caps +net_bind_service,+chown sh -c 'grep CapA /proc/self/status; touch f$$ 2>/dev/null; chown 5 /etc/hostname 2>&1 | wc -l; setpriv --dump | grep Ambient'
setpriv --securebits +noroot,+no_setuid_fixup,+keep_caps_locked --pdeathsig HUP setpriv --dump | grep -e Secure -e Parent
setpriv --reset-env --reuid 65534 --keep-groups sh -c 'id -u; env | sort | cut -d= -f1'
capsh --drop=cap_sys_admin --print | grep -c cap_sys_admin; capsh --user=nobody --inh=cap_chown -- -c 'grep CapI /proc/self/status'; capsh --uid=5 -- -c 'id -u'
prlimit --nofile=100:200 sh -c 'ulimit -n; ulimit -Hn'; nice -n 19 nice; ionice -c 3 ionice; chrt -b 0 chrt -p $$ | wc -l; taskset -c 0 nproc; setsid -w sh -c 'ps -o sid= -p $$ | grep -c "^ *$$\$"'; setarch -R uname -m; flock lk true; fallocate -l 4096 fa; stat -c %s fa`)
}

// TestProbes: what looks at the machine finds all that it looks for: each program ends as on the host and complains of as much.
func TestProbes(t *testing.T) {
	need(t, "lsof", "ss", "top", "lscpu", "vmstat", "systemd-detect-virt", "getconf")
	script(t, `
r() { "$@" > out 2> err; c=$?; echo "$1 $2: $c $(wc -l < err) $([ -s out ] && echo output)"; }
r lsof -p $$; r ss -tan; r ss -xa; r ss -s; r top -bn1; r free; r lscpu; r lscpu -e; r nproc --all; r mount; r df -h .; r df -i .; r ps aux; r ps -eLo pid,lwp,psr,cls,rtprio,ni,wchan:10,stat,lstart,comm
r getconf -a; r ip -s link; r ip addr; r ip route show table all; r ip rule; r vmstat; r uptime; r findmnt /proc; r swapon -s; r lsns -t mnt; r lsipc; r prlimit; r pmap -x $$; r env pwdx $$; r chrt -p $$; r taskset -p $$; r ionice -p $$; r netstat -i; r stat -f /; r hostname; r dmesg; r sysctl kernel.pid_max vm.overcommit_memory net.core.somaxconn fs.file-max kernel.random.boot_id
systemd-detect-virt -c > out 2>&1; [ -s out ] && echo detected; getconf PAGESIZE; getconf _NPROCESSORS_ONLN; nproc; lscpu | grep -e ^Arch -e '^CPU(s)' -e Vendor -e Model | tr -s ' '; ps -o comm= -p $$; lsof -p $$ | awk '$4 == "cwd" {print $5, $NF == ENVIRON["PWD"]}'`)
}
