# What is run in the virtual machine (scripts/vm.sh), with busybox alone: each line says what it shows, and the first that fails ends it.
fail() {
	echo "vm: FAILED: $*"
	exit 1
}
want() { # what, wanted output, command...
	what=$1 out=$2
	shift 2
	got=$("$@" 2>&1)
	[ "$got" = "$out" ] || fail "$what: want '$out', got '$got'"
	echo "ok $what"
}
for p in trap ptrace; do
	do="moat do --platform=$p"
	want "$p: a shell" 42 $do -- sh -c 'echo $((6*7))'
	want "$p: pipes and processes" 500500 $do -- sh -c 'seq 1000 | awk "{s+=\$1} END {print s}"'
	want "$p: forks" 30 $do -- sh -c 'for i in $(seq 30); do /bin/busybox true && echo; done | wc -l'
	want "$p: writes stay inside" inside $do -- sh -c 'echo inside > /etc/new; cat /etc/new'
	[ ! -e /etc/new ] || fail "$p: a write came out"
	$do -- sh -c 'exit 7'
	[ $? = 7 ] || fail "$p: exit code"
	$do -- sh -c 'kill -9 $$'
	[ $? = 137 ] || fail "$p: death by a signal"
	want "$p: background jobs" "done 0" $do -- sh -c 'for i in 1 2 3 4; do (sleep 0.2; true) & done; wait; echo done $?'
	want "$p: loopback" hello $do --network=loopback -- sh -c '(nc -l -p 5000 > /tmp/o & echo $! > /tmp/p); sleep 2; echo hello | nc -w 2 127.0.0.1 5000; sleep 1; cat /tmp/o'
	want "$p: no stray processes" 0 sh -c 'ps | grep -c "[m]oat boot"'
done
for t in /tests/*.test; do
	timeout 600 $t -test.short -test.timeout 9m >/tmp/log 2>&1 || {
		tail -n 40 /tmp/log
		fail "$t"
	}
	echo "ok $t: $(tail -n 1 /tmp/log)"
done
