package workloads

import (
	"strings"
	"testing"
	"time"
)

func TestShell(t *testing.T) {
	script(t, `
echo one two three | tr ' ' '\n' | sort -r | head -2 | (read a; read b; echo "$b $a")
cat <<EOT | wc -c
here $((6*7)) document
EOT
diff <(seq 5) <(seq 1 5) && echo same
x=$(for i in 1 2 3; do echo $i; done | paste -sd+ | bc 2>/dev/null || echo 6); echo $x
trap 'echo got USR1' USR1; kill -USR1 $$; (exit 3); echo $?
sh -c 'kill -TERM $$'; echo $?
sh -c 'kill -9 $$'; echo $?
mkfifo f; (echo through fifo > f) & cat f; wait
exec 5<>f; echo back >&5; read -u5 l; echo $l
umask; set -o pipefail; false | true; echo $?
yes | head -100000 | wc -l
echo {a..e}{1..3}; printf '%s\n' * ; ls -la /dev/null | cut -c1-10
coproc cat; echo co >&${COPROC[1]}; read -u ${COPROC[0]} l; echo $l; kill $COPROC_PID; wait 2>/dev/null
`)
}

func TestJobControl(t *testing.T) {
	script(t, `
set -m
sleep 0.3 & sleep 0.1 & jobs | sed 's/\[[0-9]\][-+ ]*//'; wait; echo done
(sleep 5; echo never) & sleep 0.2; kill -STOP %1; sleep 0.1; jobs | awk '{print $2}'; kill -KILL $!; sleep 0.2; wait $! 2>/dev/null; echo $?
sleep 100 & sleep 0.2; kill $!; wait $! 2>/dev/null; echo $?
timeout 0.2 sleep 5; echo $?
timeout -s KILL 0.2 sleep 5; echo $?
`)
}

// TestCoreutils is one line for each of coreutils' common tools.
func TestCoreutils(t *testing.T) {
	script(t, `
set -u
seq 1000 > n; head -n3 n; tail -n3 n; wc n; sort -rn n | head -1; sort -R n | sort -n | cmp - n && echo sorted
cut -c1 n | uniq -c | sort -k2 | head -3; tr 0-9 a-j < n | tail -1; nl n | tail -1; tac n | head -1; rev <<<abc
split -l 300 n part.; ls part.*; cat part.* | cmp - n && echo joined; csplit -s n 500; wc -l xx*
md5sum n; sha1sum n; sha256sum n; sha512sum n; b2sum n; cksum n; sum n; base64 n | tail -1; base32 <<<x; od -c n | head -2; xxd n 2>/dev/null | head -1
cp n m; cmp n m; cp -a n p; ln n h; ln -s n s; readlink s; stat -c '%h %s %a %F' n h s; mv m q; ls q; rm q; [ -e q ] || echo gone
mkdir -p a/b/c; touch a/b/c/f; find a | sort; cp -r a d; rm -r a; find d -type f; rmdir d/b/c 2>&1; du -a --apparent-size n | cut -f2
chmod 640 n; stat -c %a n; chmod u+x,g-r n; stat -c %A n; touch -d '2001-02-03 04:05:06 UTC' n; TZ=UTC stat -c %y n; date -u -d @86400 +%F
truncate -s 1M t; stat -c '%s %b' t; dd if=/dev/zero of=z bs=4k count=10 status=none; cmp -n 40960 z t && echo zeroes; fallocate -l 64k fa 2>/dev/null; stat -c %s fa
expr 6 \* 7; factor 360360; seq -s, 5; yes | head -2; echo -e 'a\tb' | expand; echo 'a        b' | unexpand -a; fold -w 3 <<<abcdef; fmt -w 20 <<<'the quick brown fox jumps over'; pr -h x -l 12 n | sed -n 5p
comm -12 <(seq 5) <(seq 3 8); join <(echo 1 a) <(echo 1 b); paste n n | head -1; shuf -i 1-9 | sort | tr -d '\n'; echo; tsort <<<'a b b c' | tr '\n' ' '; echo
basename /a/b.c .c; dirname /a/b.c; realpath --relative-to=/usr /usr/bin; pathchk -p ok && echo ok; mktemp -u XXXX | wc -c; test -d /usr && [ 3 -gt 2 ] && echo yes
env -i A=1 env; printenv HOME; id -u; whoami; groups; nproc; arch; uname -s; tty; true; false || echo false; logname 2>/dev/null; printf '%05.2f|%x|%q\n' 3.14159 255 'a b'
tee x y < n | wc -l; cmp x y && echo teed; install -m 755 n inst; stat -c %a inst; numfmt --to=iec 1048576; sync; sleep 0.01; nice nice; nohup true 2>/dev/null; stdbuf -o0 echo unbuffered; chroot / true && echo chrooted
df / > /dev/null && echo df; dircolors -b | wc -l; ls --color=always -d /usr | od -c | head -1; link n lk; unlink lk; mknod np p; stat -c %F np; shred -u x; ls x 2>&1
`)
}

func TestFindRoot(t *testing.T) {
	platforms(t, func(t *testing.T, p string) {
		// What comes and goes, and what differs by design (mount points of namespaces), is left out on both sides.
		text := `find / -xdev \( -path /tmp -o -path /root/.cache -o -path /work -o -path /run -o -path /var/log -o -path /var/tmp \) -prune -o -print | wc -l`
		want := command(t, 5*time.Minute, "/", "", "bash", "-c", text)
		got := sandbox{platform: p, dir: "/", limit: 5 * time.Minute}.run(t, "bash", "-c", text)
		if got.out != want.out {
			t.Errorf("find counts %s in the sandbox, %s on the host", strings.TrimSpace(got.out), strings.TrimSpace(want.out))
		}
		t.Logf("%s files; host %.1fs, sandbox %.1fs", strings.TrimSpace(want.out), want.took.Seconds(), got.took.Seconds())
	})
}

func TestSort(t *testing.T) {
	long(t)
	scriptFor(t, 10*time.Minute, `seq 1 40000000 | awk 'BEGIN{s=7}{s=(s*1103515245+12345)%2147483648; print s; if (NR>=20000000) exit}' > f; ls -l f | cut -d' ' -f5; sort -n f | sha256sum`)
}

func TestArchives(t *testing.T) {
	scriptFor(t, 5*time.Minute, archive(10))
}

func TestArchivesLarge(t *testing.T) {
	long(t)
	scriptFor(t, 20*time.Minute, archive(100))
}

// archive packs and unpacks a tree of the given number of megabytes.
func archive(mb int) string {
	return strings.ReplaceAll(`
set -e
mkdir tree; cd tree
for d in $(seq 10); do mkdir d$d; for f in $(seq 20); do head -c $((MB*1024*1024/200)) /dev/zero | openssl enc -aes-128-ctr -K 00 -iv $(printf %032x $((d*100+f))) 2>/dev/null | head -c $((MB*1024*512/200)) > d$d/f$f; yes $d$f | head -c $((MB*1024*512/200)) >> d$d/f$f || true; done; done
cd ..; (cd tree; find . -type f | sort | xargs sha256sum) > sums; sha256sum sums
for z in gzip xz; do
	tar cf - tree | $z -1 > t.$z
	rm -rf out; mkdir out; $z -d < t.$z | tar xf - -C out
	(cd out/tree; sha256sum --quiet -c ../../sums) && echo $z ok
done`, "MB", itoa(mb))
}
