"use strict";
// A worker that runs the model, tile by tile. Several of them run at the same time.

const FINE = 256; // values of the exponential function per unit
const POWERS = Float64Array.from({ length: 16 * FINE + 2 }, (_, i) => Math.exp(-i / FINE));

let session;
let about;

// The threads of ONNX Runtime run this script, too, and have messages of their own.
if (self.name !== "em-pthread") {
  onmessage = async ({ data }) => {
    try {
      if (data.wasm) await open(data);
      else await run(data);
    } catch (error) {
      postMessage({ failed: error.message || String(error) });
    }
  };
}

async function open({ wasm, model, info, threads }) {
  about = info;
  // Nothing is fetched: the page has given all that is needed.
  ort.env.wasm.wasmBinary = await wasm.arrayBuffer();
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const options = { executionProviders: ["wasm"], enableMemPattern: false };
  session = await ort.InferenceSession.create(new Uint8Array(await model.arrayBuffer()), options);
  postMessage({ threads: ort.env.wasm.numThreads }); // one, where memory cannot be shared
}

// Label the core of one tile. `planes` are (bands, height, width); `valid` is of the core, or null for all.
async function run({ planes, valid, tile, geo }) {
  const [height, width] = [tile.readBottom - tile.readTop, tile.readRight - tile.readLeft];
  const values = about.tensor === "float32" ? Float32Array.from(planes) : planes;
  const image = new ort.Tensor(about.tensor, values, [1, about.bands, height, width]);
  const name = session.outputNames[0];
  const began = performance.now();
  const logits = (await session.run({ [session.inputNames[0]]: image }, [name]))[name];
  const ms = performance.now() - began;
  if (logits.dims.join() !== [1, about.classes, height, width].join()) throw new Error(`shape ${logits.dims}`);
  const found = mostLikely(logits.data, tile, valid);
  logits.dispose();
  const counted = count(found.labels, tile, geo);
  postMessage({ ...found, ...counted, ms }, [found.labels.buffer, found.confidence.buffer]);
}

// e to the power of x, which is at most 0, to 2e-6: between two values of a table. Math.exp takes a quarter of the time
// of a small network.
function power(x) {
  const at = x * -FINE;
  if (!(at < POWERS.length - 2)) return 0;
  const whole = at | 0;
  return POWERS[whole] + (at - whole) * (POWERS[whole + 1] - POWERS[whole]);
}

// The class with the largest score of each pixel of the core, and its probability. Of equal scores, the first class is
// taken.
function mostLikely(scores, tile, valid) {
  const [height, width] = [tile.readBottom - tile.readTop, tile.readRight - tile.readLeft];
  const labels = new Uint8Array((tile.bottom - tile.top) * (tile.right - tile.left));
  const confidence = new Uint8Array(labels.length);
  const size = height * width;
  let to = 0;
  for (let row = tile.top - tile.readTop; row < tile.bottom - tile.readTop; row++) {
    const from = row * width - tile.readLeft;
    for (let at = from + tile.left, end = from + tile.right; at < end; at++, to++) {
      let best = scores[at];
      let label = 0;
      let sum = best;
      for (let c = 1; c < about.classes; c++) {
        const score = scores[c * size + at];
        sum += score;
        if (score > best) { best = score; label = c; }
      }
      if (!Number.isFinite(sum)) throw new RangeError(TEXT.notFinite);
      let whole = 0;
      for (let c = 0; c < about.classes; c++) whole += power(scores[c * size + at] - best);
      const isKnown = !valid || valid[to];
      labels[to] = isKnown ? label : NODATA;
      confidence[to] = isKnown ? SURE / whole + 0.5 : NODATA;
    }
  }
  return { labels, confidence };
}

// Pixels and, where the page knows them, square metres of each label.
function count(labels, { top, bottom, left, right }, geo) {
  const area = pixelArea(geo);
  const counts = Array(256).fill(0);
  const areas = area ? Array(256).fill(0) : null;
  const across = area && !area.byRow
    ? Float64Array.from({ length: right - left }, (_, i) => area.at(top, left + i)) : null;
  for (let row = top, at = 0; row < bottom; row++) {
    const squareMetres = area?.byRow ? area.at(row) : 0;
    for (let column = 0; column < right - left; column++, at++) {
      counts[labels[at]]++;
      if (areas) areas[labels[at]] += across ? across[column] : squareMetres;
    }
  }
  return { counts, areas };
}
