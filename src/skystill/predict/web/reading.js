"use strict";
// The worker that reads images: what the network is fed, (bands, height, width) in the data type of its spec, and which
// pixels are valid. The rules are those of skystill.raster; what they would read otherwise is refused.

const MAGIC = [["image/png", [137, 80, 78, 71]], ["image/jpeg", [255, 216, 255]], ["tiff", [73, 73, 42, 0]],
  ["tiff", [77, 77, 0, 42]], ["tiff", [73, 73, 43, 0]], ["tiff", [77, 77, 0, 43]], ["image/webp", [82, 73, 70, 70]]];
const SAMPLES = 4; // windows of 256 x 256 pixels, down and across, whose values are compared with the training images
const SIDE = 256;
const SHOWN = 16e6; // pixels of the image itself that are read for the screen at once
const GONE = ["NotReadableError", "NotFoundError"];

let image; // the one that is open

onmessage = async ({ data }) => {
  try {
    if (data.file) postMessage(await openFile(data));
    else if (data.tile) await sendTile(data);
    else await sendShown(data);
  } catch (error) {
    const why = GONE.includes(error.name) ? TEXT.gone : TEXT.damaged(error.message || String(error));
    postMessage({ why: error instanceof Refused ? error.message : why });
  }
};

// Open a file, and tell what it is: its pixels are read window by window.
async function openFile({ file, spec, limits }) {
  image = null; // of the file before
  if (!file.size) refuse(TEXT.empty);
  const raster = await openImage(file, (size) => checkSize(size, spec, limits));
  const { width, height, geo, count } = raster;
  const choice = spec.isColors ? chooseColors(checkColors(raster)) : matchBands(checkKind(raster, spec), spec);
  checkSize(raster, spec, limits);
  const numbers = choice.alpha ? [...choice.numbers, choice.alpha] : choice.numbers;
  const mask = await raster.findMask?.() ?? null; // of a TIFF
  const read = raster.byWindow ? raster.read : windowsOf(raster, await raster.read(numbers));
  const overviews = (spec.isColors || !mask) && await raster.findOverviews?.() || []; // they have no mask here
  image = { raster, choice, numbers, mask, read, spec, overviews };
  const { notes, stretch } = spec.isColors ? { notes: [], stretch: null } : await compareRange(image);
  image.stretch = stretch;
  const factors = overviews.map(({ factor }) => factor);
  return { picture: { width, height, geo, notes: [...choice.notes, ...notes], count, name: file.name, factors } };
}

function checkSize({ width, height, byWindow, block }, spec, { decoded, results }) {
  const bytes = width * height * (spec.bands.length + 2) * (spec.dtype === "uint8" ? 1 : 4);
  const [taken, limit] = [Math.ceil((byWindow ? block : bytes) / 1e6), Math.floor(decoded / 1e6)];
  if (taken > limit) refuse((byWindow ? TEXT.largeBlocks : TEXT.tooLarge)(width, height, taken, limit));
  if (width * height > results) refuse(TEXT.tooMany(width, height, Math.floor(results / 1e6)));
}

// Cuts windows out of the planes of a whole image.
function windowsOf({ width, height }, planes) {
  const bands = planes.length / (width * height);
  return async (_, { top, bottom, left, right }) => {
    const [rows, columns] = [bottom - top, right - left];
    const part = new planes.constructor(bands * rows * columns);
    for (let band = 0; band < bands; band++) {
      for (let row = 0; row < rows; row++) {
        const from = (band * height + top + row) * width + left;
        part.set(planes.subarray(from, from + columns), (band * rows + row) * columns);
      }
    }
    return part;
  };
}

// The values of an area, (bands, rows, columns) as they are stored, and which pixels are valid, or null for all.
async function readValues({ raster, choice, numbers, mask, read, spec }, area) {
  const stored = await read(numbers, area);
  const size = (area.bottom - area.top) * (area.right - area.left);
  const length = choice.numbers.length * size;
  const values = choice.alpha ? stored.slice(0, length) : stored; // a copy takes memory, and only alpha needs it
  const alpha = choice.alpha ? stored.subarray(length) : null;
  return { values, valid: validOf(raster, choice, values, alpha, mask && await mask(area), !spec.isColors) };
}

// What the network is fed of an area.
async function readArea(area, from = image) {
  const { values, valid } = await readValues(from, area);
  return image.spec.isColors ? toColors(image.raster, values, valid)
    : { planes: toValues(image.spec, values, valid), valid };
}

// One tile: what the network is fed, which pixels of its core are valid, and a reduced picture of its core.
async function sendTile({ tile, step }) {
  const area = { top: tile.readTop, bottom: tile.readBottom, left: tile.readLeft, right: tile.readRight };
  const { planes, valid } = await readArea(area);
  const picture = reduced(planes, area, tile, step);
  if (valid && !valid.includes(1)) return postMessage({ empty: true, picture }, [picture.buffer]);
  const ofCore = valid?.includes(0) ? cutOut(valid, area, tile) : null;
  const buffers = [planes.buffer, picture.buffer, ...(ofCore ? [ofCore.buffer] : [])];
  return postMessage({ planes, valid: ofCore, picture }, buffers);
}

async function sendShown({ area, step }) {
  const size = (area.bottom - area.top) * (area.right - area.left);
  let picture = await overviewPicture(area, step);
  if (!picture && size <= SHOWN) picture = reduced((await readArea(area)).planes, area, area, step);
  postMessage({ picture }, picture ? [picture.buffer] : []);
}

// A reduced picture of an area, which begins at multiples of the step, from the coarsest overview that is fine enough.
// Null without one.
async function overviewPicture(area, step) {
  const overview = image.overviews.findLast(({ factor }) => factor <= step);
  if (!overview) return null;
  const { factor, read } = overview;
  const own = Object.fromEntries(Object.entries(area).map(([side, place]) => [side, Math.ceil(place / factor)]));
  try {
    return reduced((await readArea(own, { ...image, read, mask: null })).planes, own, own, step / factor);
  } catch {
    image.overviews = []; // they are damaged, and the image itself may be sound
    return null;
  }
}

function cutOut(valid, area, core) {
  const columns = core.right - core.left;
  const part = new Uint8Array((core.bottom - core.top) * columns);
  for (let row = core.top; row < core.bottom; row++) {
    const from = (row - area.top) * (area.right - area.left) + core.left - area.left;
    part.set(valid.subarray(from, from + columns), (row - core.top) * columns);
  }
  return part;
}

// A part of an area as red, green, blue and opacity in bytes: one pixel, the mean, for each `step` x `step`.
function reduced(planes, area, { top, bottom, left, right }, step) {
  const { spec, stretch } = image;
  const across = area.right - area.left;
  const size = across * (area.bottom - area.top);
  const [rows, columns] = [Math.ceil((bottom - top) / step), Math.ceil((right - left) / step)];
  const rgba = new Uint8ClampedArray(4 * rows * columns).fill(255);
  spec.shown.forEach((band, channel) => {
    const [low, gain] = stretch ? stretch[channel] : [0, 1];
    for (let row = 0; row < rows; row++) {
      const [first, last] = [top + row * step, Math.min(top + row * step + step, bottom)];
      for (let column = 0; column < columns; column++) {
        const [begin, end] = [left + column * step, Math.min(left + column * step + step, right)];
        let sum = 0;
        for (let y = first; y < last; y++) {
          const from = band * size + (y - area.top) * across - area.left;
          for (let at = from + begin; at < from + end; at++) sum += planes[at];
        }
        rgba[4 * (row * columns + column) + channel] = (sum / ((last - first) * (end - begin)) - low) * gain;
      }
    }
  });
  return rgba;
}

async function openImage(file, check) {
  const head = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  const kind = MAGIC.find(([, magic]) => magic.every((byte, i) => byte === head[i]))?.[0];
  if (kind === "tiff") return openTiff(file);
  if (kind === "image/png") return openPng(file);
  if (kind === "image/webp" && String.fromCharCode(...head.subarray(8)) !== "WEBP") return refuse(TEXT.unknownKind);
  return kind ? openPicture(file, kind, check) : refuse(TEXT.unknownKind);
}

function checkColors(raster) {
  if (raster.kind !== "uint8") refuse(TEXT.deep(raster.kind));
  return raster;
}

function checkKind(raster, spec) {
  const fits = raster.kind === spec.dtype || (spec.dtype === "float32" && raster.kind === "float64");
  if (!fits || raster.palette) refuse(TEXT.wrongKind(raster.palette ? "indices of colours" : raster.kind, spec.dtype));
  return raster;
}

// Which pixels hold a measurement, 0 or 1 each, or null for all: by mask or nodata, by transparency, and finite.
function validOf(raster, { numbers }, values, alpha, mask, every) {
  const size = values.length / numbers.length;
  const nodata = numbers.map((number) => raster.nodata[number - 1]);
  const byNodata = !mask && nodata.every((value) => value !== null);
  const floats = values instanceof Float32Array || values instanceof Float64Array;
  if (!mask && !byNodata && !alpha && !floats) return null;
  const valid = mask ?? new Uint8Array(size).fill(1);
  for (let i = 0; i < size; i++) {
    if (alpha && !alpha[i]) valid[i] = 0;
    let measured = 0;
    for (let b = 0; b < numbers.length; b++) {
      const value = values[b * size + i];
      if (floats && !Number.isFinite(value)) valid[i] = 0;
      if (byNodata && value !== nodata[b]) measured++;
    }
    if (byNodata && (every ? measured < numbers.length : !measured)) valid[i] = 0;
  }
  return valid;
}

// Red, green and blue in bytes, from a palette, from grey, or from fewer bits.
function toColors(raster, values, valid) {
  const bands = image.choice.numbers.length;
  const size = values.length / bands;
  if (raster.inverted && bands > 1) refuse(TEXT.tiffColors("several bands in which white is zero"));
  if (!raster.palette && raster.bits === 8 && !raster.inverted && bands === 3) {
    return { planes: values, valid };
  }
  const planes = new Uint8Array(3 * size);
  const most = 2 ** raster.bits - 1;
  const seen = raster.palette ? valid ?? new Uint8Array(size).fill(1) : valid;
  for (let i = 0; i < size; i++) {
    for (let b = 0; b < 3; b++) {
      const value = values[bands === 1 ? i : b * size + i];
      const bright = Math.round((value * 255) / most);
      if (raster.palette) planes[b * size + i] = raster.palette[4 * value + b] ?? 0;
      else planes[b * size + i] = raster.inverted ? 255 - bright : bright;
    }
    if (raster.palette && !raster.palette[4 * values[i] + 3]) seen[i] = 0;
  }
  return { planes, valid: seen };
}

// Values in the data type of the spec; pixels without data get the mean of the training images.
function toValues(spec, values, valid) {
  const planes = values instanceof Float64Array ? Float32Array.from(values) : values;
  const size = values.length / spec.bands.length;
  if (valid) {
    spec.bands.forEach(({ fill }, b) => {
      for (let i = 0; i < size; i++) if (!valid[i]) planes[b * size + i] = fill;
    });
  }
  if (planes instanceof Float32Array && planes.some((value) => !Number.isFinite(value))) {
    refuse(TEXT.wrongKind("values beyond those of float32", spec.dtype));
  }
  return planes;
}

// Compare samples with the training images: a note on each band that lies outside, and how values become bytes for the
// screen. Another scale is refused.
async function compareRange({ raster: { width, height }, spec }) {
  const starts = (size) => Array.from({ length: SAMPLES }, (_, i) =>
    Math.floor((Math.max(0, size - SIDE) * i) / (SAMPLES - 1)));
  const samples = spec.bands.map(() => []);
  for (const top of starts(height)) for (const left of starts(width)) {
    const area = { top, bottom: Math.min(top + SIDE, height), left, right: Math.min(left + SIDE, width) };
    const { values, valid } = await readValues(image, area);
    const size = values.length / spec.bands.length;
    samples.forEach((own, b) => {
      for (let i = 0; i < size; i++) if (!valid || valid[i]) own.push(values[b * size + i]);
    });
  }
  samples.forEach((own, b) => { samples[b] = Float64Array.from(own).sort(); });
  const notes = spec.bands.flatMap((band, b) => {
    const own = samples[b];
    if (!own.length) return [];
    const inside = own.filter((value) => value >= band.low && value <= band.high).length / own.length;
    const middle = Number(own[own.length >> 1].toPrecision(4));
    if (inside < 0.01) refuse(TEXT.otherScale(band.label, middle, band.low, band.high));
    return inside < 0.5 ? [TEXT.partOutside(Math.round(100 * (1 - inside)), band.label, band.low, band.high)] : [];
  });
  const stretch = spec.shown.map((band) => {
    const own = samples[band];
    const [low, high] = [0.02, 0.98].map((part, end) => own[Math.floor(own.length * part)] ?? end);
    return [low, 255 / (high - low || 1)];
  });
  return { notes, stretch };
}
