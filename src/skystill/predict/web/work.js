"use strict";
// The work: images one after the other, tile by tile from the reader to the workers, and into the labels.

const $ = (id) => document.getElementById(id);
const ABOUT = JSON.parse($("about-model").textContent);
const CLASSES = ABOUT.classes;
const DECODED = 1e9; // bytes of what can only be decoded as a whole: browsers allow arrays of about 2 GB
const MEMORY = (navigator.deviceMemory || 2) * 1e9; // of the computer; not every browser tells it, and none more than 8
const LIMITS = { decoded: DECODED, results: Math.min(2e9, MEMORY / 4) }; // bytes; pixels, each of which takes two
const KEPT_CONFIDENCE = 1e9; // bytes of the labels and confidences of all images
const entries = []; // of the images, in the order in which they were given
let current = null; // the entry that is shown
let busy = true; // until the model is open
let pool;
let running; // the pool that labels, or that compares
let reader;
let readerUrl;

const setState = (state, text) => {
  document.documentElement.dataset.state = state;
  $("status").textContent = text;
};

function add(files, note = "", names = files.map((file) => file.name)) {
  files.forEach((file, i) => entries.push({ file, name: names[i], state: TEXT.waiting, note }));
  listEntries();
  workOff();
}

async function workOff() {
  if (busy) return;
  busy = true;
  running = pool;
  $("stop").hidden = false;
  for (let entry; (entry = entries.find((one) => one.state === TEXT.waiting));) await label(entry);
  busy = false;
  hideProgress();
  if (current && view.isBlank) lookAt(current); // an image that was stopped or refused was shown before
}

function showProgress(part, began) {
  const left = part ? ((performance.now() - began) / 1000 / part) * (1 - part) : 0;
  $("progress").hidden = false;
  $("progress").value = part;
  $("left").textContent = left > 0.5 ? TEXT.left(left) : "";
}

function hideProgress() {
  $("stop").hidden = true;
  $("progress").hidden = true;
  $("left").textContent = "";
}

async function label(entry) {
  const { name } = entry;
  const began = performance.now();
  entry.state = "";
  try {
    setState("reading", TEXT.reading(name));
    if (!await openInReader(entry)) throw new Stopped();
    const { width, height } = entry.picture;
    checkAll(width * height);
    entry.labels = new Labels(height, width, ABOUT.grid);
    const keep = keeper(entry);
    display(entry);
    showOverview(entry);
    setState("running", TEXT.running(name));
    if (!await pool.run(entry.labels.tiles, (tile) => readTile(entry, tile), keep)) throw new Stopped();
    if (!entry.counts.some((count, one) => count && one !== NODATA)) refuse(TEXT.noPixels);
    finish(entry);
    setState("done", TEXT.done(name, ((performance.now() - began) / 1000).toFixed(1)));
  } catch (error) {
    giveUp(entry, error);
  }
  listEntries();
}

// The class maps of all images are kept until they are saved, without their confidences.
function checkAll(size) {
  const limit = 2 * LIMITS.results;
  const pixels = entries.reduce((sum, { labels }) => sum + (labels ? labels.height * labels.width : 0), size);
  if (pixels > limit) refuse(TEXT.allTooMany(Math.floor(limit / 1e6)));
}

class Stopped extends Error {}

function giveUp(entry, error) {
  const { name } = entry;
  entry.picture = entry.labels = null;
  if (error instanceof Stopped) {
    for (const one of entries) if (one.state === TEXT.waiting) one.state = "stopped";
    entry.state = "stopped";
    setState("stopped", TEXT.stopped(name));
  } else {
    entry.state = error instanceof Refused ? error.message : TEXT.tileFailed(error.message);
    setState("refused", TEXT.refused(name, entry.state));
  }
  if (current === entry) display(entries.findLast((one) => one.finished) ?? null);
}

// Open the file of an image in the worker that reads. Returns false if that was stopped.
async function openInReader(entry) {
  if (reader.entry === entry) return true;
  reader.entry = entry;
  const { picture, why, stopped, failed } = await reader.ask({ file: entry.file, spec: ABOUT.spec, limits: LIMITS });
  if (picture) entry.picture = picture;
  else reader.entry = null;
  if (why || failed) refuse(why ?? failed);
  return !stopped;
}

// The message of a tile for a worker of the network.
async function readTile({ picture }, tile) {
  const found = await reader.ask({ tile: bounds(tile), step: view.base.step });
  if (found.why || found.failed) return { failed: new Refused(found.why ?? found.failed) };
  if (!found.planes) return found;
  const message = { planes: found.planes, valid: found.valid, tile: bounds(tile), geo: picture.geo };
  const buffers = [found.planes.buffer, ...(found.valid ? [found.valid.buffer] : [])];
  return { picture: found.picture, message, buffers };
}

// Without the labels, which a message would copy.
const bounds = ({ labels, confidence, ...own }) => own;

// The pixels of an area for the screen, or null.
async function readShown(area, step) {
  const entry = current;
  if (!entry || (busy && reader.entry !== entry)) return null;
  try {
    await openInReader(entry);
    return (await reader.ask({ area, step })).picture ?? null;
  } catch {
    return null; // a file that has gone: its classes are still shown
  }
}

// Show a large image at once, from an overview of about as many pixels as the screen has.
async function showOverview({ picture: { factors, width, height } }) {
  if (!factors.length || view.base.step === 1) return;
  const step = Math.max(factors[0], view.base.step, 2 ** Math.round(Math.log2(1 / view.scale)));
  const { labels } = view;
  const pixels = await readShown({ top: 0, left: 0, bottom: height, right: width }, step);
  if (pixels && view.labels === labels) view.putOverview(pixels, step);
}

function addCost(cost, ms, pixels) {
  cost.ms += ms;
  cost.pixels += pixels;
}

// Takes what was found in each tile: into the labels, the table of areas, and the progress bar.
function keeper(entry) {
  const { width, height, geo } = entry.picture;
  const began = performance.now();
  let done = 0;
  entry.counts = Array(256).fill(0);
  entry.areas = pixelArea(geo) ? Array(256).fill(0) : null;
  entry.cost = { ms: 0, pixels: 0 };
  showProgress(0, began);
  return (tile, { picture }, { labels, confidence, counts, areas, ms }) => {
    const size = (tile.bottom - tile.top) * (tile.right - tile.left);
    tile.labels = labels ?? new Uint8Array(size).fill(NODATA); // of a tile without data
    tile.confidence = confidence;
    if (labels) addCost(entry.cost, ms, size);
    else entry.counts[NODATA] += size;
    counts?.forEach((count, one) => { entry.counts[one] += count; });
    areas?.forEach((area, one) => { entry.areas[one] += area; });
    done += size / (width * height);
    showProgress(done, began);
    view.put(tile, picture);
    fillTable(entry);
  };
}

function finish(entry) {
  entry.finished = true;
  entry.state = "done";
  display(entry);
  let bytes = 0; // without the confidences of earlier images, there is room for more labels
  for (const { labels } of [...entries].reverse()) {
    bytes += labels?.bytes ?? 0;
    if (bytes <= KEPT_CONFIDENCE || !labels || labels === entry.labels) continue;
    for (const tile of labels.tiles) tile.confidence = null;
  }
}
