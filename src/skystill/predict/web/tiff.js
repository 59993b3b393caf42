"use strict";
// A TIFF or GeoTIFF. geotiff.js reads its tags. JPEG blocks are decoded by the browser, whose decoder rounds as GDAL's
// does.

const KINDS = {
  "1,8": ["uint8", Uint8Array], "1,16": ["uint16", Uint16Array], "1,32": ["uint32", Uint32Array],
  "2,8": ["int8", Int8Array], "2,16": ["int16", Int16Array], "2,32": ["int32", Int32Array],
  "3,32": ["float32", Float32Array], "3,64": ["float64", Float64Array],
};
const PHOTOMETRIC = { 3: "indices of a palette", 4: "a mask", 5: "inks", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab" };
const METHODS = [1, 5, 7, 8, 32946, 32773, 50000];
const PREDICTED = [5, 8, 32946, 50000]; // methods that may store differences; the tag means nothing for others
const MOST_IMAGES = 64; // in one file, such as overviews: a damaged list of them may never end
const PLACED = [33550, 33922, 34264, 34735, 34736, 34737, 50844]; // tags that say where a raster lies

// It fetches its own code from a data: address, and the policy of the page forbids every fetch.
globalThis.fetch = async (address) =>
  new Response(Uint8Array.from(atob(address.split(",")[1]), (c) => c.charCodeAt(0)));

const tagOf = async (dir, name, otherwise) => (await tagsOf(dir, name))[0] ?? otherwise;

async function tagsOf(dir, name) {
  const value = await dir.loadValue(name);
  return value === undefined ? [] : typeof value === "object" ? Array.from(value, Number) : [Number(value)];
}

async function openTiff(file) {
  const tiff = await GeoTIFF.fromBlob(file);
  const dir = (await tiff.getImage(0)).fileDirectory;
  const layout = await checkedLayout(file, dir, tiff.littleEndian);
  const metadata = String(await dir.loadValue("GDAL_METADATA") ?? "");
  const geo = await placeOf(dir);
  const orientation = await tagOf(dir, "Orientation", 1);
  if (!geo && orientation >= 2 && orientation <= 8) refuse(TEXT.turned);
  const told = nodataOf(String(await dir.loadValue("GDAL_NODATA") ?? ""));
  const nodata = told !== null && layout.kind === "float32" ? Math.fround(told) : told;
  layout.empty = nodata === null || new layout.Kind([nodata])[0] !== nodata ? 0 : nodata;
  const { width, height, count, bits, kind } = layout;
  return {
    width, height, count, bits, kind, geo, palette: null, inverted: layout.photometric === 0,
    colors: colorsOf(layout, await tagsOf(dir, "ExtraSamples"), metadata),
    descriptions: items(metadata, "description", count),
    nodata: Array(count).fill(nodata),
    byWindow: true, block: blockBytes(layout),
    findMask: () => findMask(tiff, layout),
    findOverviews: () => findOverviews(tiff, layout),
    read: (numbers, area) => readBlocks(layout, numbers, area),
  };
}

// A text of nodata as GDAL reads it: a comma may be the decimal point, and a word is 0. Null without a value that
// pixels can have and still be valid.
function nodataOf(text) {
  const plain = text.replace(/\0.*/s, "").trim();
  if (!plain || /^[+-]?(?:nan|inf|1\.#)/i.test(plain)) return null;
  return parseFloat(plain.replace(",", ".")) || 0;
}

async function layoutOf(file, dir, little) {
  const bits = await tagsOf(dir, "BitsPerSample");
  const formats = await tagsOf(dir, "SampleFormat");
  const [kind, Kind] = KINDS[`${formats[0] ?? 1},${bits[0] ?? 1}`] ?? ["bits", Uint8Array];
  const width = await tagOf(dir, "ImageWidth", 0);
  const height = await tagOf(dir, "ImageLength", 0);
  const tiled = dir.hasTag("TileOffsets");
  const method = await tagOf(dir, "Compression", 1);
  return {
    file, little, kind, Kind, width, height, tiled,
    bits: bits[0] ?? 1, stored: `of ${counted(bits[0] ?? 1, "bit")}, sample format ${formats[0] ?? 1}`,
    alike: new Set(bits).size < 2 && new Set(formats).size < 2,
    count: await tagOf(dir, "SamplesPerPixel", 1), apart: (await tagOf(dir, "PlanarConfiguration", 1)) === 2,
    method, predictor: PREDICTED.includes(method) ? await tagOf(dir, "Predictor", 1) : 1,
    isReversed: (await tagOf(dir, "FillOrder", 1)) === 2,
    photometric: await tagOf(dir, "PhotometricInterpretation", 1), tables: await dir.loadValue("JPEGTables") ?? null,
    across: tiled ? await tagOf(dir, "TileWidth", 0) : width,
    down: tiled ? await tagOf(dir, "TileLength", 0) : Math.min(height, await tagOf(dir, "RowsPerStrip", height)),
    offsets: await tagsOf(dir, tiled ? "TileOffsets" : "StripOffsets"),
    lengths: await tagsOf(dir, tiled ? "TileByteCounts" : "StripByteCounts"),
  };
}

async function checkedLayout(file, dir, little) {
  const layout = await layoutOf(file, dir, little);
  checkLayout(layout);
  return chopStrips(layout);
}

const blockBytes = ({ across, down, apart, count, bits }) => (across * down * (apart ? 1 : count) * bits) / 8;

function checkLayout(layout) {
  const { method, predictor, photometric, count, across, down, width, height, offsets, lengths } = layout;
  if (layout.kind === "bits" || !layout.alike) refuse(TEXT.tiffBits(layout.alike ? layout.stored : "of several kinds"));
  if (!METHODS.includes(method)) refuse(TEXT.tiffPacked(method));
  const jpegColors = method === 7 && photometric === 6;
  if (PHOTOMETRIC[photometric] && !jpegColors) refuse(TEXT.tiffColors(PHOTOMETRIC[photometric]));
  if (method === 7 && count !== 1 && count !== 3 && !layout.apart) refuse(TEXT.tiffPacked(`JPEG of ${count} bands`));
  if (method === 7) checkReadback();
  if (layout.isReversed) refuse(TEXT.tiffPacked("bits in reverse order"));
  const isPredicted = predictor === 1 || (predictor === 2 && layout.bits < 64)
    || (predictor === 3 && layout.kind.startsWith("float"));
  if (!isPredicted) refuse(TEXT.tiffPacked(`predictor ${predictor} of ${layout.kind}`));
  if (predictor === 2 && !layout.little && layout.bits > 8) refuse(TEXT.tiffOrder);
  const blocks = Math.ceil(width / across) * Math.ceil(height / down) * (layout.apart ? count : 1);
  if (!(blocks > 0) || offsets.length !== blocks || lengths.length !== blocks) {
    refuse(TEXT.damaged(`${offsets.length} of ${blocks} blocks are listed`));
  }
  const beyond = offsets.findIndex((offset, i) => offset + lengths[i] > layout.file.size);
  if (beyond >= 0) refuse(TEXT.damaged(`block ${beyond} of ${blocks} lies beyond its end`));
}

// What GDAL says of each band: red, green, blue, gray, alpha, or what its metadata say.
function colorsOf({ photometric, count }, extra, metadata) {
  const first = photometric === 2 || photometric === 6 ? ["red", "green", "blue"] : ["gray"];
  const told = items(metadata, "colorinterp", count);
  let alpha = false;
  return Array.from({ length: count }, (_, i) => {
    const isAlpha = i >= first.length && !alpha && [1, 2].includes(extra[i - first.length]);
    alpha ||= isAlpha;
    return told[i].toLowerCase() || first[i] || (isAlpha ? "alpha" : "undefined");
  });
}

const ITEM = /<Item\b((?:"[^"]*"|'[^']*'|[^"'>])*)>((?:<!\[CDATA\[.*?\]\]>|[^<])*)<\/Item>/gis;
const ATTRIBUTE = /([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g;
const ENTITIES = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

// Items of GDAL's metadata that have this role, one text for each band.
function items(metadata, role, count) {
  const found = Array(count).fill("");
  for (const [, head, text] of metadata.replace(/<\!--.*?-->/gs, "").matchAll(ITEM)) {
    const told = Object.fromEntries([...head.matchAll(ATTRIBUTE)].map(([, name, one, other]) => [name, one ?? other]));
    const isOne = /^\d+$/.test(told.sample) && told.sample < count && told.role?.toLowerCase() === role;
    if (isOne) found[told.sample] = plainText(text);
  }
  return found;
}

// What a text of XML says.
const plainText = (text) => text.replace(/<!\[CDATA\[(.*?)\]\]>|&(?:#(\d+)|#x([\da-f]+)|(lt|gt|quot|apos|amp));/gis,
  (_, own, decimal, hex, name) => own ?? ENTITIES[name] ?? String.fromCodePoint(decimal ?? parseInt(hex, 16)));

// The tags that place a raster, as they are: the class raster gets the same ones.
async function placeOf(dir) {
  const tags = {};
  for (const tag of PLACED) {
    const value = await dir.loadValue(tag);
    if (value !== undefined) tags[tag] = typeof value === "string" ? value : Array.from(value, Number);
  }
  return Object.keys(tags).length ? tags : null;
}

// Reads which pixels of an area an internal mask names as valid: 0 and 1. Null without a mask.
async function findMask(tiff, { file, width, height }) {
  for (let i = 1; i < MOST_IMAGES; i++) {
    const dir = await directoryOf(tiff, i);
    if (!dir) return null;
    if (((await tagOf(dir, "NewSubfileType", 0)) & 5) !== 4) continue; // 4: a mask; 1: of an overview
    const layout = await layoutOf(file, dir, tiff.littleEndian);
    if (layout.width !== width || layout.height !== height) continue;
    if (layout.bits !== 1 || layout.count !== 1) refuse(TEXT.tiffBits(`${layout.stored}, of its mask`));
    checkLayout({ ...layout, kind: "mask", photometric: 1 });
    return (area) => readBlocks(layout, [1], area);
  }
  return null;
}

// Reduced copies of the image, the finest first: { factor, read } each. Those that this page cannot read are left out.
async function findOverviews(tiff, { file, width, height, count, kind, photometric, empty }) {
  const found = [];
  for (let i = 1; i < MOST_IMAGES; i++) {
    const dir = await directoryOf(tiff, i);
    if (!dir) break;
    if (((await tagOf(dir, "NewSubfileType", 0)) & 5) !== 1) continue;
    const layout = await checkedLayout(file, dir, tiff.littleEndian).catch(() => null);
    const factor = layout && 2 ** Math.round(Math.log2(width / layout.width));
    const isReduced = factor > 1 && layout.width === Math.ceil(width / factor)
      && layout.height === Math.ceil(height / factor);
    const fits = isReduced && layout.count === count && layout.kind === kind && layout.photometric === photometric;
    if (!fits) continue;
    layout.empty = empty;
    found.push({ factor, read: (numbers, area) => readBlocks(layout, numbers, area) });
  }
  return found.sort((one, other) => one.factor - other.factor);
}

// The directory of the n-th image, or null after the last one.
async function directoryOf(tiff, i) {
  try {
    return (await tiff.getImage(i)).fileDirectory;
  } catch (error) {
    if (/^No image at index/.test(error.message)) return null;
    throw error;
  }
}
