# What Python programs do: threads, processes by fork and by spawn, asyncio, subprocess, mmap, signals, sqlite3.
import asyncio, ctypes, hashlib, mmap, multiprocessing as mp, os, signal, socket, sqlite3, subprocess, sys, tempfile, threading, time


def square(x):
    return x * x


def threads():
    n, lock, total = 50, threading.Lock(), [0]

    def work(i):
        for _ in range(100):
            with lock:
                total[0] += i
    ts = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    e = threading.Event()
    threading.Timer(0.05, e.set).start()
    print("threads", total[0], e.wait(5))


def processes():
    for how in "fork", "spawn":
        c = mp.get_context(how)
        with c.Pool(3) as p:
            print(how, sum(p.map(square, range(100))))
    q = mp.get_context("fork").Queue()
    p = mp.get_context("fork").Process(target=q.put, args=("through a queue",))
    p.start()
    print(q.get(), p.join(), p.exitcode)


async def echo():
    async def serve(r, w):
        w.write(await r.readline())
        await w.drain()
        w.close()
    path = os.path.join(tempfile.mkdtemp(), "s")
    srv = await asyncio.start_unix_server(serve, path)
    r, w = await asyncio.open_unix_connection(path)
    w.write(b"hello\n")
    print("asyncio", await r.readline())
    w.close()
    srv.close()
    p = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print((await p.communicate(b"piped"))[0], p.returncode)
    print(sum(await asyncio.gather(*[asyncio.sleep(0.01, i) for i in range(100)])))


def maps():
    with tempfile.TemporaryFile() as f:
        f.truncate(1 << 20)
        m = mmap.mmap(f.fileno(), 1 << 20)
        m[5000:5005] = b"mmap!"
        m.flush()
        f.seek(5000)
        print(f.read(5), len(m), m.find(b"mmap!"))
        m.close()
    a = mmap.mmap(-1, 1 << 16)
    if os.fork() == 0:
        a[0:6] = b"shared"
        os._exit(0)
    os.wait()
    print(a[0:6])


def signals():
    got = []
    for s in signal.SIGUSR1, signal.SIGALRM, signal.SIGRTMIN + 3:
        signal.signal(s, lambda n, f: got.append(n))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGRTMIN + 3)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(0.2)
    print(sorted(got))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR2)
    print(signal.sigwait([signal.SIGUSR2]) == signal.SIGUSR2)


def rest():
    db = sqlite3.connect(os.path.join(tempfile.mkdtemp(), "db"))
    db.execute("create table t(x)")
    db.executemany("insert into t values(?)", [(i,) for i in range(1000)])
    db.commit()
    print(db.execute("select sum(x) from t").fetchone())
    print(subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True))
    try:
        subprocess.run(["/nonexistent"])
    except FileNotFoundError as e:
        print(e.errno)
    a, b = socket.socketpair()
    socket.send_fds(a, [b"fd"], [os.open("/etc/hostname", os.O_RDONLY)])
    msg, fds, _, _ = socket.recv_fds(b, 10, 1)
    print(msg, os.read(fds[0], 1) != b"")
    print(hashlib.sha256(b"x" * 1000000).hexdigest(), ctypes.CDLL(None).abs(-5))


if __name__ == "__main__":
    threads()
    processes()
    asyncio.run(echo())
    maps()
    signals()
    rest()
    sys.stdout.flush()
