"use strict";
// The workers. Each runs whole tiles on one thread: two tiles on two cores finish sooner than one tile on both. Cores
// that are left, because more workers would take too much memory, become threads; a page from a file may have none.

const MOST_THREADS = 16; // of one worker

const scriptUrl = (...parts) => URL.createObjectURL(
  new Blob(parts.flatMap((part) => [part, "\n"]), { type: "text/javascript" }));

// A worker that answers one message at a time.
class Asked {
  constructor(url) {
    this.worker = new Worker(url);
    this.last = Promise.resolve();
    this.worker.onmessage = ({ data }) => this.answer?.(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.answer?.({ failed: event.message || "a worker of the page broke" });
    };
  }

  // Send a message once all others are answered, and return its answer.
  ask(message, transfer = []) {
    this.last = this.last.then(() => new Promise((resolve) => {
      this.answer = resolve;
      if (this.ended) resolve({ stopped: true });
      else this.worker.postMessage(message, transfer);
    }));
    return this.last;
  }

  end() {
    this.ended = true;
    this.worker.terminate();
    this.answer?.({ stopped: true });
  }
}

class Pool {
  constructor(url, opening, most = 16) {
    this.url = url;
    this.opening = opening; // what each worker is opened with
    const memory = navigator.deviceMemory || 4; // GB, which not every browser tells; a worker takes up to 300 MB
    const cores = navigator.hardwareConcurrency || 1;
    this.most = Math.max(1, Math.min(most, cores, Math.floor(memory)));
    this.threads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, Math.floor(cores / this.most)) : 1;
    this.workers = [];
  }

  // Open workers until there are `count`, and throw if the model cannot be opened.
  async open(count = 1) {
    while (this.workers.length < Math.min(count, this.most)) {
      const worker = new Asked(this.url);
      this.workers.push(worker);
      worker.ready = worker.ask({ ...this.opening, threads: this.threads });
    }
    const opened = await Promise.all(this.workers.map((worker) => worker.ready));
    const broken = opened.find((one) => one.failed);
    if (!broken) return;
    if (this.threads === 1) throw new Error(broken.failed);
    this.threads = 1; // some browsers have too little memory that can be shared
    for (const worker of this.workers.splice(0)) worker.end();
    await this.open(count);
  }

  // Label all tiles. `read` gives the message of a tile, or why there is none; `keep` takes what is found in it.
  // Returns false if it was stopped.
  async run(tiles, read, keep) {
    this.stopped = false;
    await this.open(tiles.length);
    const waiting = [...tiles];
    const ahead = []; // tiles that are read while others are labelled
    const next = () => {
      while (waiting.length && ahead.length <= this.workers.length) {
        const tile = waiting.shift();
        ahead.push({ tile, reading: read(tile) });
      }
      return ahead.shift();
    };
    const work = async (worker) => {
      for (let one; !this.stopped && (one = next());) {
        const part = await one.reading;
        const { message, buffers } = part;
        const found = message && !this.stopped ? await worker.ask(message, buffers) : {};
        if (part.failed || found.failed) {
          waiting.length = ahead.length = 0;
          throw part.failed ?? new Error(found.failed);
        }
        if (!this.stopped) keep(one.tile, part, found);
      }
    };
    const ends = await Promise.allSettled(this.workers.map(work)); // no worker is left with a tile
    const broken = ends.find((one) => one.status === "rejected");
    if (broken && !this.stopped) throw broken.reason;
    return !this.stopped;
  }

  // End at once. New workers are opened at the same time, so that the next image does not wait for them.
  stop() {
    this.stopped = true;
    for (const worker of this.workers.splice(0)) worker.end();
    this.open().catch(() => {}); // the next image says why
  }
}
