import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;

public class Threads {
    public static void main(String[] a) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(8);
        AtomicLong sum = new AtomicLong();
        List<Future<Long>> fs = new ArrayList<>();
        for (int i = 0; i < 64; i++) {
            final int n = i;
            fs.add(pool.submit(() -> {
                long s = 0;
                for (int k = 0; k < 200000; k++) s += (k ^ n) % 7;
                sum.addAndGet(s);
                return s;
            }));
        }
        long check = 0;
        for (Future<Long> f : fs) check += f.get();
        pool.shutdown();
        System.out.println(pool.awaitTermination(10, TimeUnit.SECONDS) + " " + (check == sum.get()) + " " + check);
        byte[][] garbage = new byte[64][];
        for (int i = 0; i < 2000; i++) garbage[i % 64] = new byte[100000];
        System.gc();
        Process p = new ProcessBuilder("echo", "child").start();
        System.out.println(new String(p.getInputStream().readAllBytes()).trim() + " " + p.waitFor());
        Thread t = new Thread(() -> { synchronized (pool) { pool.notifyAll(); } });
        synchronized (pool) { t.start(); pool.wait(2000); }
        t.join();
        System.out.println("done");
    }
}
