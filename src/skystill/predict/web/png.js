"use strict";
// A PNG, decoded here and not by the browser: a browser multiplies colours by their transparency, reduces 16 bits to 8,
// and shows the rest of a truncated file as if it were whole.

const PNG_HEAD = [137, 80, 78, 71, 13, 10, 26, 10];
const ADAM7 = [[0, 0, 8, 8], [0, 4, 8, 8], [4, 0, 8, 4], [0, 2, 4, 4], [2, 0, 4, 2], [0, 1, 2, 2], [1, 0, 2, 1]];
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

// The check sum of bytes that follow others, whose check sum is `before`.
function crc32(bytes, before = 0) {
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

async function openPng(file) {
  const chunks = pngChunks(new Uint8Array(await file.arrayBuffer()));
  const head = chunks.find(([kind]) => kind === "IHDR")?.[1];
  if (head?.length !== 13) refuse(TEXT.damaged("it has no header"));
  const view = new DataView(head.buffer, head.byteOffset, 13);
  const [width, height, bits, type, , , interlaced] = [
    view.getUint32(0), view.getUint32(4), ...head.subarray(8)];
  const count = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }[type];
  const sound = count && [1, 2, 4, 8, 16].includes(bits) && (bits >= 8 || type === 0 || type === 3) && interlaced < 2;
  if (!sound || !width || !height) refuse(TEXT.damaged("its header is not that of a PNG"));
  const named = (kind) => chunks.find(([name]) => name === kind)?.[1] ?? null;
  if (exifOrientation(named("eXIf")) !== 1) refuse(TEXT.turned);
  const parts = chunks.filter(([kind]) => kind === "IDAT").map(([, content]) => content);
  return {
    width, height, count, bits, kind: bits === 16 ? "uint16" : "uint8", geo: null, inverted: false,
    colors: { 0: ["gray"], 2: ["red", "green", "blue"], 3: ["palette"], 4: ["gray", "alpha"],
      6: ["red", "green", "blue", "alpha"] }[type],
    descriptions: Array(count).fill(""),
    nodata: pngNodata(type, count, named("tRNS")),
    palette: type === 3 ? pngPalette(named("PLTE"), named("tRNS")) : null,
    read: (numbers) => readPng({ width, height, bits, count, interlaced }, parts, numbers),
  };
}

function pngChunks(bytes) {
  const view = new DataView(bytes.buffer);
  const found = [];
  for (let at = 8; ;) {
    if (at + 12 > bytes.length) refuse(TEXT.damaged("its end is missing"));
    const size = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (at + 12 + size > bytes.length) refuse(TEXT.damaged("its end is missing"));
    if (crc32(bytes.subarray(at + 4, at + 8 + size)) !== view.getUint32(at + 8 + size)) {
      refuse(TEXT.damaged(`the check sum of a part differs (${kind})`));
    }
    if (kind === "IEND") return found;
    found.push([kind, bytes.subarray(at + 8, at + 8 + size)]);
    at += 12 + size;
  }
}

// The value of each band that means "no data"; null without one. In a palette, transparent colours mean it.
function pngNodata(type, count, transparent) {
  const values = transparent && (type === 0 || type === 2);
  return Array.from({ length: count }, (_, i) => (values ? transparent[2 * i] * 256 + transparent[2 * i + 1] : null));
}

function pngPalette(colors, alphas) {
  if (!colors) refuse(TEXT.damaged("it has no palette"));
  const table = new Uint8Array(4 * Math.floor(colors.length / 3));
  for (let i = 0; i < table.length / 4; i++) {
    table.set(colors.subarray(3 * i, 3 * i + 3), 4 * i);
    table[4 * i + 3] = alphas?.[i] ?? 255;
  }
  return table;
}

async function readPng(head, parts, numbers) {
  const passes = (head.interlaced ? ADAM7 : [[0, 0, 1, 1]]).map(([top, left, down, across]) => ({
    top, left, down, across,
    rows: Math.ceil((head.height - top) / down), columns: Math.ceil((head.width - left) / across),
  })).filter((pass) => pass.rows > 0 && pass.columns > 0);
  const lengths = passes.map((pass) => Math.ceil((pass.columns * head.count * head.bits) / 8) + 1);
  const size = passes.reduce((sum, pass, i) => sum + pass.rows * lengths[i], 0);
  const raw = await inflated(new Blob(parts), "deflate", size);
  const planes = new (head.bits === 16 ? Uint16Array : Uint8Array)(numbers.length * head.height * head.width);
  let at = 0;
  passes.forEach((pass, i) => {
    const part = raw.subarray(at, at += pass.rows * lengths[i]);
    unfilter(part, pass.rows, lengths[i], Math.max(1, (head.count * head.bits) >> 3));
    spread(part, pass, lengths[i], head, numbers, planes);
  });
  return planes;
}

// Undo the filter of each row in place.
function unfilter(raw, rows, length, step) {
  for (let row = 0; row < rows; row++) {
    const at = row * length + 1;
    const filter = raw[at - 1];
    if (filter > 4) refuse(TEXT.damaged(`row ${row} has an unknown filter`));
    for (let i = 0; i < length - 1; i++) {
      const left = i >= step ? raw[at + i - step] : 0;
      const up = row ? raw[at + i - length] : 0;
      if (filter === 1) raw[at + i] += left;
      else if (filter === 2) raw[at + i] += up;
      else if (filter === 3) raw[at + i] += (left + up) >> 1;
      else if (filter === 4) raw[at + i] += paeth(left, up, row && i >= step ? raw[at + i - length - step] : 0);
    }
  }
}

function paeth(left, up, corner) {
  const a = Math.abs(up - corner);
  const b = Math.abs(left - corner);
  const c = Math.abs(left + up - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

function spread(raw, pass, length, { width, height, bits, count }, numbers, planes) {
  const mask = (1 << bits) - 1;
  for (let row = 0; row < pass.rows; row++) {
    for (let column = 0; column < pass.columns; column++) {
      const place = (pass.top + row * pass.down) * width + pass.left + column * pass.across;
      for (let band = 0; band < numbers.length; band++) {
        const bit = (column * count + numbers[band] - 1) * bits;
        const from = row * length + 1 + (bit >> 3);
        const value = bits === 16 ? raw[from] * 256 + raw[from + 1] : raw[from];
        planes[band * height * width + place] = bits >= 8 ? value : (value >> (8 - bits - (bit & 7))) & mask;
      }
    }
  }
}

// Unpack into exactly `size` bytes.
async function inflated(blob, format, size) {
  const out = new Uint8Array(size);
  let at = 0;
  try {
    const reader = blob.stream().pipeThrough(new DecompressionStream(format)).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const kept = part.value.subarray(0, size - at);
      out.set(kept, at);
      at += kept.length;
    }
  } catch (error) {
    refuse(TEXT.damaged(`its pixels cannot be unpacked (${error.message})`));
  }
  if (at < size) refuse(TEXT.damaged(`${at} of ${size} bytes of its pixels are there`));
  return out;
}

// The orientation in a block of EXIF; 1, upright, without one.
function exifOrientation(bytes) {
  if (!bytes || bytes.length < 14) return 1;
  const start = bytes[0] === 69 && bytes[4] === 0 ? 6 : 0; // "Exif\0\0"
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, bytes.length - start);
  const little = view.getUint16(0) === 0x4949;
  const at = view.getUint32(4, little);
  if (at + 2 > view.byteLength) return 1;
  for (let i = 0, n = view.getUint16(at, little); i < n && at + 14 + 12 * i <= view.byteLength; i++) {
    if (view.getUint16(at + 2 + 12 * i, little) !== 274) continue;
    const found = view.getUint16(at + 10 + 12 * i, little);
    return found >= 1 && found <= 8 ? found : 1;
  }
  return 1;
}
