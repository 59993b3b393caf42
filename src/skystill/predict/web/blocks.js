"use strict";
// The blocks of a TIFF: tiles or strips. Those that a window needs are read from the file and decoded; the ones used
// last are kept, because neighbouring windows share them.

const KEPT = 1e8; // bytes of decoded blocks: a row of tiles of a striped image that is 50,000 pixels wide
const CHOPPED = 2 ** 20; // bytes: strips without compression are read in parts of about this size

let zstd;

async function openZstd() {
  zstd ??= new GeoTIFF.ZSTDDecoder();
  await zstd.init();
  return zstd;
}

// Planes of some bands within an area, band after band.
async function readBlocks(layout, numbers, { top, bottom, left, right }) {
  const { Kind, height, across, down, apart, count } = layout;
  const [rows, columns] = [bottom - top, right - left];
  const planes = new Kind(numbers.length * rows * columns);
  const perRow = Math.ceil(layout.width / across);
  const perBand = perRow * Math.ceil(height / down);
  for (let y = Math.floor(top / down); y * down < bottom; y++) {
    const stored = layout.tiled ? down : Math.min(down, height - y * down);
    const [first, last] = [Math.max(top, y * down), Math.min(bottom, (y + 1) * down)];
    for (let x = Math.floor(left / across); x * across < right; x++) {
      const [begin, end] = [Math.max(left, x * across), Math.min(right, (x + 1) * across)];
      const shared = apart ? null : await blockOf(layout, y * perRow + x, stored);
      for (let i = 0; i < numbers.length; i++) {
        const values = shared ?? await blockOf(layout, (numbers[i] - 1) * perBand + y * perRow + x, stored);
        const [step, place] = apart ? [1, 0] : [count, numbers[i] - 1];
        for (let row = first; row < last; row++) {
          let to = (i * rows + row - top) * columns + begin - left;
          let from = ((row - y * down) * across + begin - x * across) * step + place;
          for (const stop = to + end - begin; to < stop; to++, from += step) planes[to] = values[from];
        }
      }
    }
  }
  return planes;
}

// A decoded block, which may be kept from before.
async function blockOf(layout, block, rows) {
  const kept = layout.blocks ??= new Map(); // in the order of their last use
  const values = kept.get(block) ?? await decodeBlock(layout, block, rows);
  if (!kept.delete(block)) layout.held = (layout.held ?? 0) + values.byteLength;
  kept.set(block, values);
  while (layout.held > KEPT && kept.size > 1) {
    const [oldest, bytes] = kept.entries().next().value;
    layout.held -= bytes.byteLength;
    kept.delete(oldest);
  }
  return values;
}

// Strips without compression may be the whole image: they are read in parts.
function chopStrips(layout) {
  const { tiled, method, predictor, width, height, down, count, apart, bits, offsets, lengths } = layout;
  const row = (width * (apart ? 1 : count) * bits) / 8;
  const rowsOf = (block) => Math.min(down, height - (block % Math.ceil(height / down)) * down);
  const whole = () => lengths.every((length, block) => length === rowsOf(block) * row);
  if (tiled || method !== 1 || predictor > 1 || bits < 8 || down * row <= CHOPPED || !whole()) return layout;
  let part = Math.max(1, Math.floor(CHOPPED / row));
  while (down < height && down % part) part--;
  const parts = offsets.flatMap((offset, block) => Array.from({ length: Math.ceil(rowsOf(block) / part) },
    (_, i) => [offset + i * part * row, Math.min(part, rowsOf(block) - i * part) * row]));
  const [starts, sizes] = [0, 1].map((place) => parts.map((one) => one[place]));
  return { ...layout, down: part, offsets: starts, lengths: sizes };
}

// The values of one block, interleaved. A block that was never written is empty: GDAL reads it as nodata, or as 0.
async function decodeBlock(layout, block, rows) {
  const { file, Kind, across, apart, count, bits, method } = layout;
  const values = across * rows * (apart ? 1 : count);
  const wanted = bits === 1 ? Math.ceil(across / 8) * rows : values * Kind.BYTES_PER_ELEMENT;
  if (!layout.lengths[block]) {
    if (layout.offsets[block]) refuse(TEXT.damaged(`block ${block} has a place and no length`)); // GDAL guesses it
    return new Kind(values).fill(layout.empty ?? 0);
  }
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
  const fits = bytes.byteOffset % Kind.BYTES_PER_ELEMENT === 0;
  return new Kind(fits ? bytes.buffer : bytes.slice().buffer, fits ? bytes.byteOffset : 0, values);
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
  const values = new Uint8Array(across * rows);
  for (let row = 0, to = 0; row < rows; row++) {
    for (let x = 0; x < across; x++) values[to++] = (bytes[row * length + (x >> 3)] >> (7 - (x & 7))) & 1;
  }
  return values;
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
