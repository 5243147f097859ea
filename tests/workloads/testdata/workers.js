// Worker threads, shared memory, child processes, streams, timers.
const { Worker, isMainThread, workerData, parentPort } = require('worker_threads');
if (isMainThread) {
  const shared = new SharedArrayBuffer(4);
  let done = 0, sum = 0;
  for (let i = 0; i < 4; i++) {
    const w = new Worker(__filename, { workerData: { i, shared } });
    w.on('message', (m) => { sum += m; });
    w.on('exit', () => { if (++done === 4) finish(); });
  }
  function finish() {
    console.log('workers', sum, new Int32Array(shared)[0]);
    const { execFileSync, spawn } = require('child_process');
    console.log(execFileSync('echo', ['from a child']).toString().trim());
    const c = spawn('cat'); let out = '';
    c.stdout.on('data', (d) => { out += d; }); c.on('close', (code) => {
      console.log('cat', out, code);
      const fs = require('fs'); fs.writeFileSync('f', 'x'.repeat(100000)); console.log(fs.statSync('f').size);
      const net = require('net'); const path = process.cwd() + '/sock';
      const s = net.createServer((k) => { k.end('served'); }).listen(path, () => {
        net.connect(path).on('data', (d) => { console.log(d.toString()); s.close(); });
      });
    });
    c.stdin.end('streamed');
  }
} else {
  let n = 0;
  for (let k = 0; k < 1e6; k++) n = (n + k * (workerData.i + 1)) % 1000003;
  Atomics.add(new Int32Array(workerData.shared), 0, 1);
  parentPort.postMessage(n);
}
