public class Idle {
    public static void main(String[] a) throws Exception {
        for (int i = 0; i < 4; i++) {
            Thread t = new Thread(() -> {
                synchronized (Idle.class) {
                    try {
                        Idle.class.wait();
                    } catch (InterruptedException e) {
                    }
                }
            });
            t.setDaemon(true);
            t.start();
        }
        System.out.println("up");
        Thread.sleep(600000);
    }
}
