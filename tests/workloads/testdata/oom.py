# Processes that want more memory than the sandbox has: who dies is the one with the most points, not the one that asks last.
import ctypes, errno, mmap, os, signal, sys

MB = 1 << 20
limit = [int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemTotal")][0] >> 10


def hog(mb, adj=0):
    """Starts a process that holds mb megabytes, and returns it when it does."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        if adj:
            open("/proc/self/oom_score_adj", "w").write(str(adj))
        m = mmap.mmap(-1, max(mb, 1) * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for i in range(0, mb * MB, 4096):
            m[i] = 1
        os.write(w, b"x")
        signal.pause()
        os._exit(1)
    os.close(w)
    os.read(r, 1)
    os.close(r)
    return pid


def grow(mb, how):
    """Starts a process that takes mb megabytes, and returns how it ended."""
    pid = os.fork()
    if pid == 0:
        m = mmap.mmap(-1, mb * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if how == "touch":
            for i in range(0, mb * MB, 4096):
                m[i] = 1
        else:  # the kernel touches it
            z = open("/dev/zero", "rb", buffering=0)
            v = memoryview(m)
            at = 0
            while at < mb * MB:
                at += z.readinto(v[at:at + MB])
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def end(pid):
    """How the process is: its status if it has ended, else None; it is killed then."""
    p, st = os.waitpid(pid, os.WNOHANG)
    if p:
        return st
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def kills():
    return [int(l.split()[1]) for l in open("/proc/vmstat") if l.startswith("oom_kill ")][0]


big, small = limit * 55 // 100, limit * 45 // 100 - 5
for how in "touch", "read":
    h = hog(big)
    print(how, "grower", grow(small, how), "largest", end(h))
h = hog(big, -1000)
print("protected: grower", grow(small, "touch"), "largest", end(h))
h, s = hog(limit // 2), hog(0, 1000)
print("adjusted: grower", grow(limit // 2 - 5, "touch") in (0, 9), "small one", end(s), "largest", end(h) in (None, 9))
h = hog(limit // 4)
scores = int(open(f"/proc/{h}/oom_score").read()), int(open("/proc/self/oom_score").read())
print("score", scores[0] - scores[1] in range(140, 190), 666 <= scores[1] < 760)
k = kills()
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
# Linux compares with the machine's RAM, not with a control group's limit.
p = libc.mmap(None, 2 * limit * MB, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
print("promised:", p != ctypes.c_void_p(-1).value, "kills", kills() - k)
p = libc.mmap(None, 1 << 45, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
print("too much:", p == ctypes.c_void_p(-1).value, ctypes.get_errno() == errno.ENOMEM, "kills", kills() - k, "idle one", end(h))
print("counted", k >= 4)
