"use strict";
// A worker that runs the model on one thread, tile by tile. Several of them run at the same time.

let session;
let about;

onmessage = async ({ data }) => {
  try {
    if (data.wasm) await open(data);
    else await run(data);
  } catch (error) {
    postMessage({ failed: error.message || String(error), id: data.id });
  }
};

async function open({ wasm, model, info }) {
  about = info;
  ort.env.wasm.wasmBinary = wasm; // nothing is fetched: the page has no network, and a file has no neighbours
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], enableMemPattern: false });
  postMessage({ ready: true });
}

// Label the core of one tile. `planes` are (bands, height, width).
async function run({ id, planes, height, width, core }) {
  const values = about.tensor === "float32" ? Float32Array.from(planes) : planes;
  const image = new ort.Tensor(about.tensor, values, [1, about.bands, height, width]);
  const name = session.outputNames[0];
  const logits = (await session.run({ [session.inputNames[0]]: image }, [name]))[name];
  if (logits.dims.join() !== [1, about.classes, height, width].join()) throw new Error(`shape ${logits.dims}`);
  const labels = mostLikely(logits.data, height, width, core);
  logits.dispose();
  postMessage({ id, labels }, [labels.buffer]);
}

// The class with the largest score of each pixel of the core. Of equal scores, the first class is taken.
function mostLikely(scores, height, width, { top, bottom, left, right }) {
  const labels = new Uint8Array((bottom - top) * (right - left));
  const size = height * width;
  let to = 0;
  for (let row = top; row < bottom; row++) {
    for (let at = row * width + left, end = row * width + right; at < end; at++) {
      let best = scores[at];
      let label = 0;
      let sum = best;
      for (let c = 1; c < about.classes; c++) {
        const score = scores[c * size + at];
        sum += score;
        if (score > best) { best = score; label = c; }
      }
      if (!Number.isFinite(sum)) throw new RangeError(TEXT.notFinite);
      labels[to++] = label;
    }
  }
  return labels;
}
