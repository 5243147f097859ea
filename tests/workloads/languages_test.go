package workloads

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestLanguages runs programs of many language implementations, each with threads, processes, pipes and sockets as far as it has them, and other programs that ask
// much of a kernel (valgrind, a browser, MPI): the host's output is the expected one. What is not installed is skipped; make workloads installs it.
func TestLanguages(t *testing.T) {
	long(t)
	for _, c := range []struct{ name, programs, text string }{
		{"ruby", "ruby", `ruby -e 'require "socket"; require "open3"; th=(1..20).map{|i| Thread.new{ sleep 0.01; i*i}}; p th.map(&:value).sum; r,w=IO.pipe
if fork; w.close; puts r.read; Process.wait; else r.close; w.write "child"; exit!(3); end; p $?.exitstatus; o,s=Open3.capture2("cat", stdin_data:"x"*100000); p o.size
s=TCPServer.new("127.0.0.1",0); t=Thread.new{c=s.accept; c.puts "hi"; c.close}; c=TCPSocket.new("127.0.0.1",s.addr[1]); p c.gets; Signal.trap("USR1"){puts "usr1"}; Process.kill("USR1",$$); sleep 0.1'`},
		{"php", "php", `php -r '$p=proc_open("cat",[["pipe","r"],["pipe","w"]],$pipes); fwrite($pipes[0],"hello"); fclose($pipes[0]); echo stream_get_contents($pipes[1]),"\n",proc_close($p),"\n";
file_put_contents("x",str_repeat("a",1<<20)); echo md5_file("x"),"\n"; $f=fopen("x","c+"); var_dump(flock($f,LOCK_EX|LOCK_NB)); $s=stream_socket_server("tcp://127.0.0.1:0"); var_dump(is_resource($s));'`},
		{"rust", "rustc", `cat > a.rs <<'R'
use std::{thread, sync::mpsc, process::Command, net::{TcpListener, TcpStream}, io::{Read, Write}};
fn main() {
	let (tx, rx) = mpsc::channel();
	for i in 0..8u64 { let tx = tx.clone(); thread::spawn(move || tx.send((0..100000u64).fold(i, |a, b| a.wrapping_mul(31).wrapping_add(b))).unwrap()); }
	drop(tx); println!("{}", rx.iter().fold(0u64, |a, b| a ^ b)); println!("{:?}", Command::new("echo").arg("hi").output().unwrap());
	let l = TcpListener::bind("127.0.0.1:0").unwrap(); let a = l.local_addr().unwrap();
	thread::spawn(move || { let (mut s, _) = l.accept().unwrap(); let mut b = [0; 5]; s.read_exact(&mut b).unwrap(); s.write_all(&b).unwrap(); });
	let mut s = TcpStream::connect(a).unwrap(); s.write_all(b"hello").unwrap(); let mut v = vec![]; s.read_to_end(&mut v).unwrap(); println!("{}", v.len());
}
R
PATH=/usr/bin:$PATH rustc -O a.rs && ./a`},
		{"haskell", "ghc", `cat > a.hs <<'R'
import Control.Concurrent
import Control.Monad
main = do { m <- newEmptyMVar; forM_ [1..100] (\i -> forkIO (putMVar m (i*i))); xs <- replicateM 100 (takeMVar m); print (sum xs); print (length (filter even [1..200000::Int])) }
R
ghc -O -threaded a.hs -o a | tail -1; ./a +RTS -N2; echo $?`},
		{"ocaml", "ocamlopt", `echo 'let () = if Unix.fork () = 0 then exit 3 else match Unix.wait () with _, Unix.WEXITED n -> Printf.printf "exit %d\n" n | _ -> print_endline "?"' > a.ml
ocamlopt -I +unix unix.cmxa a.ml -o a && ./a`},
		{"erlang", "erl", `HOME=$PWD erl -noshell -eval 'S=self(), [spawn(fun()->S!I*I end)||I<-lists:seq(1,1000)], R=lists:sum([receive X->X end||_<-lists:seq(1,1000)]), io:format("~p~n",[R]),
{ok,L}=gen_tcp:listen(0,[binary,{active,false}]), {ok,P}=inet:port(L), spawn(fun()->{ok,C}=gen_tcp:connect("127.0.0.1",P,[binary]), gen_tcp:send(C,<<"hello">>), gen_tcp:close(C) end),
{ok,A}=gen_tcp:accept(L), {ok,D}=gen_tcp:recv(A,0), io:format("~p ~p~n",[D,os:cmd("echo x")]), halt().'`},
		{"mono", "mcs mono", `cat > a.cs <<'R'
using System; using System.Threading; using System.Threading.Tasks;
class P { static void Main() { long s=0; Parallel.For(0,1000,i=>Interlocked.Add(ref s,i)); Console.WriteLine(s); var p=System.Diagnostics.Process.Start("echo","hi"); p.WaitForExit();
Console.WriteLine(p.ExitCode); GC.Collect(); var t=new Thread(()=>Console.WriteLine("thread")); t.Start(); t.Join(); } }
R
mcs a.cs && mono a.exe`},
		{"lisp", "sbcl", `sbcl --noinform --no-userinit --non-interactive --eval '(progn (print (loop for i below 1000000 sum i)) (gc :full t) (print (sb-thread:join-thread (sb-thread:make-thread (lambda () 42))))
(print (with-output-to-string (s) (sb-ext:run-program "/bin/echo" (list "hi") :output s))))'`},
		{"luajit", "luajit", `luajit -e 'local s=0 for i=1,1e7 do s=s+i end print(s) print(io.popen("echo hi"):read("a"))'`},
		{"r", "R", `R --no-save --vanilla -q -e 'library(parallel); print(sum(unlist(mclapply(1:8,function(i) i^2, mc.cores=2)))); set.seed(1); m<-matrix(rnorm(40000),200); print(dim(solve(m)))
print(system("echo hi",intern=TRUE)); cl<-makeCluster(2); print(parSapply(cl,1:4,function(x) x*2)); stopCluster(cl)' 2>&1`},
		{"prolog", "swipl", `swipl -g 'X is 2**100, print(X), nl, thread_create(true,Id), thread_join(Id), halt'`},
		{"tcl", "tclsh expect", `echo 'set f [open "|cat" r+]; puts $f hi; flush $f; puts [gets $f]; close $f' | tclsh
expect -c 'spawn sh; send "echo $((1+2))\r"; expect "3"; send "exit 5\r"; expect eof; puts [lindex [wait] 3]' | tail -1`},
		{"pascal", "fpc", `echo 'begin writeln(6*7); end.' > a.pas; fpc a.pas > /dev/null 2>&1; ./a`},
		{"ada", "gnatmake", `printf 'with Ada.Text_IO; procedure A is task T; task body T is begin Ada.Text_IO.Put_Line("task"); end; begin null; end A;' > a.adb; gnatmake -q a.adb -o ad && ./ad`},
		{"shells", "zsh fish mksh tcsh", `for s in zsh fish mksh tcsh; do HOME=$PWD $s -c 'echo a | cat; echo b'; done; zsh -c 'zmodload zsh/zpty; a=(1 2 3); echo $#a'; HOME=$PWD fish -c 'for i in (seq 3); echo $i; end'`},
		{"numpy", "python3:numpy python3:pandas", `/usr/bin/python3 -c '
import numpy as np, pandas as pd
rng=np.random.default_rng(1); a=rng.random((400,400)); print(np.allclose(a@np.linalg.inv(a),np.eye(400)))
df=pd.DataFrame({"a":np.arange(100000)%7,"b":rng.random(100000)}); print(df.groupby("a").b.mean().round(6).tolist()); df.to_csv("x.csv"); print(len(pd.read_csv("x.csv")))'`},
		{"zmq", "python3:zmq", `/usr/bin/python3 -c '
import zmq, threading
c=zmq.Context(); s=c.socket(zmq.REP); p=s.bind_to_random_port("tcp://127.0.0.1")
t=threading.Thread(target=lambda: [s.send(s.recv()) for i in range(200)]); t.start(); q=c.socket(zmq.REQ); q.connect("tcp://127.0.0.1:%d"%p)
for i in range(200): q.send(b"%d"%i); assert q.recv()==b"%d"%i
t.join(); a=c.socket(zmq.PUSH); a.bind("ipc://zz"); b=c.socket(zmq.PULL); b.connect("ipc://zz"); a.send(b"x"*100000); print(len(b.recv()))'`},
		{"uvloop", "python3:uvloop python3:aiohttp", `/usr/bin/python3 -c '
import asyncio, uvloop, aiohttp, aiohttp.web
async def main():
    async def h(r): return aiohttp.web.Response(text="x"*int(r.query.get("n","10")))
    app=aiohttp.web.Application(); app.router.add_get("/",h); r=aiohttp.web.AppRunner(app); await r.setup(); s=aiohttp.web.TCPSite(r,"127.0.0.1",8301); await s.start()
    async with aiohttp.ClientSession() as c:
        async def g(i):
            async with c.get("http://127.0.0.1:8301/?n=%d"%(i*100)) as q: return len(await q.text())
        print(sum(await asyncio.gather(*[g(i) for i in range(300)])))
    p=await asyncio.create_subprocess_exec("cat",stdin=-1,stdout=-1); print(len((await p.communicate(b"y"*300000))[0])); await r.cleanup()
uvloop.install(); asyncio.run(main())'`},
		{"mpi", "mpicc mpirun", `cat > m.c <<'R'
#include <mpi.h>
#include <stdio.h>
int main(int c,char**v){int r,n,s=0;MPI_Init(&c,&v);MPI_Comm_rank(MPI_COMM_WORLD,&r);MPI_Comm_size(MPI_COMM_WORLD,&n);for(int i=0;i<100;i++){int x=r+i,y;MPI_Allreduce(&x,&y,1,MPI_INT,MPI_SUM,MPI_COMM_WORLD);s+=y;}if(!r)printf("%d %d\n",n,s);MPI_Finalize();}
R
mpicc m.c -o m && HOME=$PWD OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe -np 3 ./m`},
		{"valgrind", "valgrind gcc", `cat > v.c <<'R'
#include <stdlib.h>
#include <stdio.h>
#include <pthread.h>
#include <signal.h>
void h(int s){}
void *f(void *x){int *p=malloc(40);p[3]=1;free(p);return 0;}
int main(){signal(SIGUSR1,h);raise(SIGUSR1);pthread_t t;pthread_create(&t,0,f,0);pthread_join(t,0);char *p=malloc(10);p[10]=1;printf("%d\n",p[9]==p[8]);return 0;}
R
gcc -g v.c -o v -pthread; valgrind --error-exitcode=9 ./v 2>&1 | sed 's/==[0-9]*==//; s/0x[0-9A-F]*//g'; valgrind --tool=helgrind ./v 2>&1 | tail -1 | sed 's/==[0-9]*==//'
valgrind -q --trace-children=yes sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do /bin/true; done; ls /usr | head -3'`},
		{"xorg", "Xvfb xterm", `Xvfb :77 -screen 0 640x480x24 > log 2>&1 & x=$!; for i in $(seq 50); do [ -e /tmp/.X11-unix/X77 ] && break; sleep 0.1; done
DISPLAY=:77 timeout 20 xterm -e 'echo $((6*7)) > out' 2>/dev/null; cat out; kill $x; wait $x; echo $?`},
		{"chromium", "chromium", `mkdir cr; echo '<html><body><script>document.body.innerHTML="<p>"+(6*7)+"</p>"</script></body></html>' > cr/a.html
HOME=$PWD timeout 90 chromium --headless --no-sandbox --disable-gpu --user-data-dir=$PWD/cr/p --dump-dom file://$PWD/cr/a.html 2>/dev/null | grep -o '<p>.*</p>'`},
		{"mariadb", "mariadb-install-db mariadbd", `d=$PWD/db; mkdir $d; chmod 711 . ..; chown mysql $d; mariadb-install-db --user=mysql --datadir=$d --auth-root-authentication-method=normal > log 2>&1; echo $?
mariadbd --no-defaults --user=mysql --datadir=$d --socket=$d/s --skip-networking --pid-file=$d/pid > log2 2>&1 &
for i in $(seq 60); do mariadb-admin --no-defaults -S $d/s ping >/dev/null 2>&1 && break; sleep 0.5; done
mariadb --no-defaults -S $d/s -e 'create database x; use x; create table t(a int primary key auto_increment, b varchar(100)) engine=innodb; insert into t(b) values ("a"),("b"); insert into t(b) select b from t;
insert into t(b) select concat(x.b,y.b) from t x, t y, t z; select count(*), sum(a) from t; check table t; begin; delete from t where a%2; rollback; select count(*) from t;'; mariadb-admin --no-defaults -S $d/s shutdown; wait`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, p := range strings.Fields(c.programs) {
				if module, ok := strings.CutPrefix(p, "python3:"); !ok {
					need(t, p)
				} else if exec.Command("/usr/bin/python3", "-c", "import "+module).Run() != nil {
					t.Skipf("/usr/bin/python3 has no %s (make workloads)", module)
				}
			}
			scriptFor(t, 3*time.Minute, c.text)
		})
	}
}
