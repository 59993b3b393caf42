"use strict";
// A TIFF or GeoTIFF. geotiff.js reads its tags; each block is decoded once, and JPEG blocks by the browser, whose
// decoder rounds as GDAL's does.

const KINDS = {
  "1,8": ["uint8", Uint8Array], "1,16": ["uint16", Uint16Array], "1,32": ["uint32", Uint32Array],
  "2,8": ["int8", Int8Array], "2,16": ["int16", Int16Array], "2,32": ["int32", Int32Array],
  "3,32": ["float32", Float32Array], "3,64": ["float64", Float64Array],
};
const PHOTOMETRIC = { 3: "indices of a palette", 4: "a mask", 5: "inks", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab" };
const METHODS = [1, 5, 7, 8, 32946, 32773, 50000];
const MOST_IMAGES = 64; // in one file, such as overviews: a damaged list of them may never end
const PLACED = [33550, 33922, 34264, 34735, 34736, 34737, 50844]; // tags that say where a raster lies

let zstd;

async function openZstd() {
  zstd ??= new GeoTIFF.ZSTDDecoder();
  await zstd.init();
  return zstd;
}

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
  const layout = await layoutOf(file, dir, tiff.littleEndian);
  checkLayout(layout);
  const metadata = String(await dir.loadValue("GDAL_METADATA") ?? "");
  const geo = await placeOf(dir);
  const orientation = await tagOf(dir, "Orientation", 1);
  if (!geo && orientation >= 2 && orientation <= 8) refuse(TEXT.turned);
  const told = parseFloat(String(await dir.loadValue("GDAL_NODATA") ?? "nan"));
  const nodata = Number.isNaN(told) ? null : layout.kind === "float32" ? Math.fround(told) : told;
  layout.empty = nodata === null || new layout.Kind([nodata])[0] !== nodata ? 0 : nodata;
  const { width, height, count, bits, kind } = layout;
  return {
    width, height, count, bits, kind, geo, palette: null, inverted: layout.photometric === 0,
    colors: colorsOf(layout, await tagsOf(dir, "ExtraSamples"), metadata),
    descriptions: items(metadata, "description", count),
    nodata: Array(count).fill(nodata),
    findMask: () => findMask(tiff, layout),
    read: (numbers) => readBlocks(layout, numbers),
  };
}

async function layoutOf(file, dir, little) {
  const bits = await tagsOf(dir, "BitsPerSample");
  const formats = await tagsOf(dir, "SampleFormat");
  const [kind, Kind] = KINDS[`${formats[0] ?? 1},${bits[0] ?? 1}`] ?? ["bits", Uint8Array];
  const width = await tagOf(dir, "ImageWidth", 0);
  const height = await tagOf(dir, "ImageLength", 0);
  const tiled = dir.hasTag("TileOffsets");
  return {
    file, little, kind, Kind, width, height, tiled,
    bits: bits[0] ?? 1, alike: new Set(bits).size < 2 && new Set(formats).size < 2,
    count: await tagOf(dir, "SamplesPerPixel", 1), apart: (await tagOf(dir, "PlanarConfiguration", 1)) === 2,
    method: await tagOf(dir, "Compression", 1), predictor: await tagOf(dir, "Predictor", 1),
    photometric: await tagOf(dir, "PhotometricInterpretation", 1), tables: await dir.loadValue("JPEGTables") ?? null,
    across: tiled ? await tagOf(dir, "TileWidth", 0) : width,
    down: tiled ? await tagOf(dir, "TileLength", 0) : Math.min(height, await tagOf(dir, "RowsPerStrip", height)),
    offsets: await tagsOf(dir, tiled ? "TileOffsets" : "StripOffsets"),
    lengths: await tagsOf(dir, tiled ? "TileByteCounts" : "StripByteCounts"),
  };
}

function checkLayout(layout) {
  const { method, photometric, count, across, down, width, height, offsets, lengths } = layout;
  if (layout.kind === "bits" || !layout.alike) refuse(TEXT.tiffBits(layout.bits));
  if (!METHODS.includes(method)) refuse(TEXT.tiffPacked(method));
  const jpegColors = method === 7 && photometric === 6;
  if (PHOTOMETRIC[photometric] && !jpegColors) refuse(TEXT.tiffColors(PHOTOMETRIC[photometric]));
  if (method === 7 && count !== 1 && count !== 3 && !layout.apart) refuse(TEXT.tiffPacked(`JPEG of ${count} bands`));
  if (method === 7) checkReadback();
  if (layout.predictor === 2 && !layout.little && layout.bits > 8) refuse(TEXT.tiffOrder);
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

const ENTITIES = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

// Items of GDAL's metadata that have this role, one text for each band.
function items(metadata, role, count) {
  const found = Array(count).fill("");
  for (const [, attributes, text] of metadata.matchAll(/<Item\s([^>]*)>([^<]*)<\/Item>/g)) {
    const sample = attributes.match(/\bsample="(\d+)"/)?.[1];
    if (sample !== undefined && sample < count && attributes.includes(`role="${role}"`)) {
      found[sample] = text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name) => ENTITIES[name]);
    }
  }
  return found;
}

// The tags that place a raster, as they are: the class raster gets the same ones.
async function placeOf(dir) {
  const tags = {};
  for (const tag of PLACED) {
    const value = await dir.loadValue(tag);
    if (value !== undefined) tags[tag] = typeof value === "string" ? value : Array.from(value, Number);
  }
  return Object.keys(tags).length ? tags : null;
}

// Which pixels an internal mask names as valid: 0 and 1; null without a mask.
async function findMask(tiff, { file, width, height }) {
  for (let i = 1; i < MOST_IMAGES; i++) {
    const dir = await directoryOf(tiff, i);
    if (!dir) return null;
    if (((await tagOf(dir, "NewSubfileType", 0)) & 5) !== 4) continue; // 4: a mask; 1: of an overview
    const layout = await layoutOf(file, dir, tiff.littleEndian);
    if (layout.width !== width || layout.height !== height) continue;
    if (layout.bits !== 1 || layout.count !== 1) refuse(TEXT.tiffBits(`${layout.bits} (of its mask)`));
    checkLayout({ ...layout, kind: "mask", photometric: 1 });
    return readBlocks(layout, [1]);
  }
  return null;
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

// Planes of some bands, band after band.
async function readBlocks(layout, numbers) {
  const { Kind, width, height, across, down, apart, count } = layout;
  const planes = new Kind(numbers.length * width * height);
  const columns = Math.ceil(width / across);
  const perBand = columns * Math.ceil(height / down);
  for (let block = 0; block < perBand; block++) {
    const top = Math.floor(block / columns) * down;
    const left = (block % columns) * across;
    const rows = layout.tiled ? down : Math.min(down, height - top);
    const shared = apart ? null : await decodeBlock(layout, block, rows);
    for (let i = 0; i < numbers.length; i++) {
      const values = shared ?? await decodeBlock(layout, (numbers[i] - 1) * perBand + block, rows);
      const [step, first] = apart ? [1, 0] : [count, numbers[i] - 1];
      for (let row = 0; row < Math.min(rows, height - top); row++) {
        let to = (i * height + top + row) * width + left;
        let from = row * across * step + first;
        for (const end = to + Math.min(across, width - left); to < end; to++, from += step) planes[to] = values[from];
      }
    }
  }
  return planes;
}

// The values of one block, interleaved. A block that was never written is empty: GDAL reads it as nodata, or as 0.
async function decodeBlock(layout, block, rows) {
  const { file, Kind, across, apart, count, bits, method } = layout;
  const values = across * rows * (apart ? 1 : count);
  const wanted = bits === 1 ? Math.ceil(across / 8) * rows : values * Kind.BYTES_PER_ELEMENT;
  if (!layout.lengths[block]) return new Kind(values).fill(layout.empty ?? 0);
  const packed = await file.slice(layout.offsets[block], layout.offsets[block] + layout.lengths[block]).arrayBuffer();
  let bytes;
  if (method === 7) bytes = await decodeJpegBlock(layout, new Uint8Array(packed), rows);
  else if (method === 5) bytes = unpackLzw(new Uint8Array(packed), wanted);
  else if (method === 50000) bytes = (await openZstd()).decode(new Uint8Array(packed), wanted);
  else if (method === 8 || method === 32946) bytes = await inflated(new Blob([packed]), "deflate", wanted);
  else bytes = new Uint8Array(await (await GeoTIFF.getDecoder(method, decoderFor(layout, rows, 1))).decode(packed));
  if (bytes.length < wanted) refuse(TEXT.damaged(`block ${block} holds ${bytes.length} of ${wanted} bytes`));
  if (layout.predictor > 1 && method !== 7) bytes = await unpredicted(layout, bytes, rows);
  if (bits === 1) return unpackBits(bytes, across, rows);
  if (bits > 8 && !layout.little && layout.predictor !== 3) swapBytes(bytes, bits / 8);
  return new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + wanted));
}

const decoderFor = ({ across, apart, count, bits }, rows, predictor) => ({
  tileWidth: across, tileHeight: rows, planarConfiguration: apart ? 2 : 1, predictor,
  bitsPerSample: Array(apart ? 1 : count).fill(bits),
});

async function unpredicted(layout, bytes, rows) {
  class AsItIs extends GeoTIFF.BaseDecoder { decodeBlock(buffer) { return buffer; } }
  const whole = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  return new Uint8Array(await new AsItIs(decoderFor(layout, rows, layout.predictor)).decode(whole));
}

function unpackBits(bytes, across, rows) {
  const length = Math.ceil(across / 8);
  return Uint8Array.from({ length: across * rows }, (_, i) => {
    const column = i % across;
    return (bytes[Math.floor(i / across) * length + (column >> 3)] >> (7 - (column & 7))) & 1;
  });
}

function swapBytes(bytes, size) {
  for (let i = 0; i + size <= bytes.length; i += size) bytes.subarray(i, i + size).reverse();
}

// A JPEG block as a file of its own, which the browser decodes: the shared tables, then the block.
async function decodeJpegBlock({ tables, photometric, count, apart, across }, packed, rows) {
  const adobe = [0xff, 0xee, 0, 14, 65, 100, 111, 98, 101, 0, 100, 0, 0, 0, 0, 0]; // "the colours are RGB"
  const parts = [[0xff, 0xd8], photometric === 6 ? [] : adobe, tables?.slice(2, -2) ?? [], packed.subarray(2)];
  const blob = new Blob(parts.map((part) => Uint8Array.from(part)));
  const whole = new Uint8Array(await blob.arrayBuffer());
  checkJpeg(whole);
  const bitmap = await decoded(new Blob([whole], { type: "image/jpeg" }));
  if (bitmap.width !== across || bitmap.height < rows) refuse(TEXT.damaged("a block of it has another size"));
  const bands = apart ? 1 : count;
  const planes = pixelsOf(bitmap, 0, rows);
  const bytes = new Uint8Array(across * rows * bands);
  for (let i = 0; i < across * rows; i++) for (let b = 0; b < bands; b++) bytes[i * bands + b] = planes[4 * i + b];
  bitmap.close();
  return bytes;
}

// LZW of TIFF. Each entry of the table is a part of what was written already: the one before, and one byte more.
function unpackLzw(bytes, size) {
  if (bytes[0] === 0 && bytes[1] & 1) refuse(TEXT.tiffPacked("LZW of before 1992"));
  const out = new Uint8Array(size);
  const starts = new Int32Array(4097);
  const lengths = new Int32Array(4097);
  let [at, place, held, bits, width, next, before, length] = [0, 0, 0, 0, 9, 258, 0, 0];
  while (at < size) {
    while (held < width) {
      if (place === bytes.length) return out.subarray(0, at);
      bits = ((bits << 8) | bytes[place++]) & 0xffffff;
      held += 8;
    }
    const code = (bits >>> (held -= width)) & ((1 << width) - 1);
    if (code === 257) break;
    if (code === 256) { [width, next, length] = [9, 258, 0]; continue; }
    if (code > next || (code === next && !length)) refuse(TEXT.damaged("a block of it cannot be unpacked (LZW)"));
    const from = code < next ? starts[code] : before;
    const count = code < 256 ? 1 : code < next ? lengths[code] : length + 1;
    const start = at;
    if (code < 256) out[at++] = code;
    else for (let i = 0; i < count && at < size; i++) out[at++] = out[from + i];
    if (length && next < 4096) {
      starts[next] = before;
      lengths[next++] = length + 1;
      if (next + 1 >= 1 << width && width < 12) width++;
    }
    [before, length] = [start, count];
  }
  return out.subarray(0, at);
}
