"use strict";
// The worker that reads images: what the network is fed, (bands, height, width) in the data type of its spec, and which
// pixels are valid. The rules are those of skystill.raster; what they would read otherwise is refused.

const MAGIC = [["image/png", [137, 80, 78, 71]], ["image/jpeg", [255, 216, 255]], ["tiff", [73, 73, 42, 0]],
  ["tiff", [77, 77, 0, 42]], ["tiff", [73, 73, 43, 0]], ["tiff", [77, 77, 0, 43]], ["image/webp", [82, 73, 70, 70]]];
const SAMPLES = 4; // windows of 256 x 256 pixels, down and across, whose values are compared with the training images
const SIDE = 256;

onmessage = async ({ data: { file, spec, limit } }) => {
  try {
    const picture = await readImage(file, spec, limit);
    postMessage({ picture }, [picture.planes.buffer, ...(picture.valid ? [picture.valid.buffer] : [])]);
  } catch (error) {
    const why = error instanceof Refused ? error.message : TEXT.damaged(error.message || String(error));
    postMessage({ why });
  }
};

async function readImage(file, spec, limit) {
  if (!file.size) refuse(TEXT.empty);
  const raster = await openImage(file);
  const { width, height, geo, count } = raster;
  const choice = spec.isColors ? chooseColors(checkColors(raster)) : matchBands(checkKind(raster, spec), spec);
  const bytes = width * height * (spec.bands.length + 2) * (spec.dtype === "uint8" ? 1 : 4);
  if (bytes > limit) refuse(TEXT.tooLarge(width, height, Math.ceil(bytes / 1e6), Math.floor(limit / 1e6)));
  raster.mask = await raster.findMask?.() ?? null; // of a TIFF
  const stored = await raster.read(choice.alpha ? [...choice.numbers, choice.alpha] : choice.numbers);
  const length = choice.numbers.length * width * height;
  const values = choice.alpha ? stored.slice(0, length) : stored; // a copy takes memory, and only alpha needs it
  const alpha = choice.alpha ? stored.subarray(length) : null;
  let valid = validOf(raster, choice, values, alpha, !spec.isColors);
  let planes;
  const notes = [...choice.notes];
  if (spec.isColors) ({ planes, valid } = toColors(raster, values, valid));
  else {
    notes.push(...compareRange(spec, values, valid, width, height));
    planes = toValues(spec, values, valid);
  }
  if (valid && !valid.includes(1)) refuse(TEXT.noPixels);
  if (valid && !valid.includes(0)) valid = null;
  return { width, height, planes, valid, geo, notes, count, name: file.name };
}

async function openImage(file) {
  const head = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  const kind = MAGIC.find(([, magic]) => magic.every((byte, i) => byte === head[i]))?.[0];
  if (kind === "tiff") return openTiff(file);
  if (kind === "image/png") return openPng(file);
  if (kind === "image/webp" && String.fromCharCode(...head.subarray(8)) !== "WEBP") return refuse(TEXT.unknownKind);
  return kind ? openPicture(file, kind) : refuse(TEXT.unknownKind);
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
function validOf(raster, { numbers }, values, alpha, every) {
  const size = raster.width * raster.height;
  const nodata = numbers.map((number) => raster.nodata[number - 1]);
  const byNodata = !raster.mask && nodata.every((value) => value !== null);
  const floats = values instanceof Float32Array || values instanceof Float64Array;
  if (!raster.mask && !byNodata && !alpha && !floats) return null;
  const valid = raster.mask ? Uint8Array.from(raster.mask) : new Uint8Array(size).fill(1);
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
  const size = raster.width * raster.height;
  if (!raster.palette && raster.bits === 8 && !raster.inverted && values.length === 3 * size) {
    return { planes: values, valid };
  }
  const planes = new Uint8Array(3 * size);
  const most = 2 ** raster.bits - 1;
  const seen = raster.palette ? valid ?? new Uint8Array(size).fill(1) : valid;
  for (let i = 0; i < size; i++) {
    for (let b = 0; b < 3; b++) {
      const value = values[values.length === size ? i : b * size + i];
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

// Compare samples with the training images; return a note on each band that lies outside, and refuse another scale.
function compareRange(spec, values, valid, width, height) {
  const starts = (size) => Array.from({ length: SAMPLES }, (_, i) =>
    Math.floor((Math.max(0, size - SIDE) * i) / (SAMPLES - 1)));
  return spec.bands.flatMap((band, b) => {
    const own = [];
    for (const top of starts(height)) for (const left of starts(width)) {
      for (let row = top; row < Math.min(top + SIDE, height); row++) {
        for (let at = row * width + left, end = row * width + Math.min(left + SIDE, width); at < end; at++) {
          if (!valid || valid[at]) own.push(values[b * width * height + at]);
        }
      }
    }
    if (!own.length) return [];
    const inside = own.filter((value) => value >= band.low && value <= band.high).length / own.length;
    const middle = Number(own.sort((x, y) => x - y)[own.length >> 1].toPrecision(4));
    if (inside < 0.01) refuse(TEXT.otherScale(band.label, middle, band.low, band.high));
    return inside < 0.5 ? [TEXT.partOutside(Math.round(100 * (1 - inside)), band.label, band.low, band.high)] : [];
  });
}
