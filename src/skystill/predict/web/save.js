"use strict";
// The files that the page saves. They hold what skystill predict writes: labels in bytes, the colours of the classes,
// 255 where there is no data, and the place of the image.

const BLOCK = 512;

async function packed(bytes, format) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A GeoTIFF of one band with a palette, in blocks that are packed with deflate.
async function toGeotiff({ labels, geo }, classes) {
  const { width, height } = labels;
  const blocks = [];
  for (let top = 0; top < height; top += BLOCK) {
    for (let left = 0; left < width; left += BLOCK) {
      const block = new Uint8Array(BLOCK * BLOCK).fill(NODATA);
      for (let row = top; row < Math.min(top + BLOCK, height); row++) {
        labels.copyRow(row, left, Math.min(left + BLOCK, width), block, (row - top) * BLOCK);
      }
      blocks.push(await packed(block, "deflate"));
    }
  }
  const palette = [0, 1, 2].flatMap((band) =>
    Array.from({ length: 256 }, (_, i) => (classes[i]?.rgb[band] ?? 0) * 257));
  const lengths = blocks.map((block) => block.length);
  const tags = [
    [256, 4, [width]], [257, 4, [height]], [258, 3, [8]], [259, 3, [8]], [262, 3, [3]], [277, 3, [1]], [284, 3, [1]],
    [320, 3, palette], [322, 3, [BLOCK]], [323, 3, [BLOCK]], [324, 4, lengths], [325, 4, lengths], [339, 3, [1]],
    ...placeTags(geo), [42112, 2, metadataOf(classes)], [42113, 2, String(NODATA)],
  ].sort(([one], [other]) => one - other);
  return new Blob([tiffHead(tags, lengths), ...blocks], { type: "image/tiff" });
}

const placeTags = (geo) => Object.entries(geo ?? {}).map(([tag, value]) => {
  const type = { 34735: 3, 34737: 2 }[tag] ?? 12;
  return [Number(tag), type, value];
});

function metadataOf(classes) {
  const plain = (text) => text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
  const items = classes.map(({ name }, i) => `  <Item name="CLASS_${i}" sample="0">${plain(name)}</Item>\n`);
  return `<GDALMetadata>\n${items.join("")}</GDALMetadata>\n`;
}

// Header, directory and values of a TIFF. The blocks follow it, one after the other.
function tiffHead(tags, lengths) {
  const sizes = { 2: 1, 3: 2, 4: 4, 12: 8 };
  const text = new TextEncoder();
  const entries = tags.map(([tag, type, value]) => {
    const values = type === 2 ? [...text.encode(value.replace(/\0*$/, "\0"))] : value;
    return { tag, type, values, bytes: values.length * sizes[type] };
  });
  const room = entries.reduce((sum, one) => sum + (one.bytes > 4 ? one.bytes + (one.bytes % 2) : 0), 0);
  const start = 8 + 2 + 12 * entries.length + 4;
  const view = new DataView(new ArrayBuffer(start + room));
  let block = start + room;
  entries.find((one) => one.tag === 324).values = lengths.map((length) => (block += length) - length);
  view.setUint32(0, 0x49492a00);
  view.setUint32(4, 8, true);
  view.setUint16(8, entries.length, true);
  let free = start;
  entries.forEach(({ tag, type, values, bytes }, i) => {
    const at = 10 + 12 * i;
    view.setUint16(at, tag, true);
    view.setUint16(at + 2, type, true);
    view.setUint32(at + 4, values.length, true);
    let to = bytes > 4 ? free : at + 8;
    if (bytes > 4) {
      view.setUint32(at + 8, free, true);
      free += bytes + (bytes % 2);
    }
    for (const one of values) {
      if (type === 2) view.setUint8(to, one);
      else if (type === 3) view.setUint16(to, one, true);
      else if (type === 4) view.setUint32(to, one, true);
      else view.setFloat64(to, one, true);
      to += sizes[type];
    }
  });
  return view;
}

// A PNG with the colours of the classes as its palette; pixels without data are transparent.
async function toPng({ labels }, classes) {
  const { width, height } = labels;
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint32(8, 0x08030000); // 8 bits, palette
  const colors = Uint8Array.from({ length: 768 }, (_, i) => classes[Math.floor(i / 3)]?.rgb[i % 3] ?? 0);
  const alphas = new Uint8Array(256).fill(255);
  alphas[NODATA] = 0;
  const rows = Math.max(1, Math.floor(2 ** 18 / (width + 1)));
  let top = 0;
  const lines = new ReadableStream({
    async pull(controller) { // some rows at a time, so that the page can go on
      await pause();
      const count = Math.min(rows, height - top);
      if (!count) return controller.close();
      const part = new Uint8Array((width + 1) * count); // 0 before each row: no filter
      for (let row = 0; row < count; row++) labels.copyRow(top + row, 0, width, part, row * (width + 1) + 1);
      top += count;
      return controller.enqueue(part);
    },
  });
  const parts = [];
  const packing = lines.pipeThrough(new CompressionStream("deflate")).getReader();
  for (let part = await packing.read(); !part.done; part = await packing.read()) parts.push(["IDAT", part.value]);
  const chunks = [["IHDR", new Uint8Array(head.buffer)], ["PLTE", colors], ["tRNS", alphas], ...parts,
    ["IEND", new Uint8Array(0)]];
  return new Blob([Uint8Array.from(PNG_HEAD), ...chunks.map(pngChunk)], { type: "image/png" });
}

function pngChunk([kind, content]) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set([...kind].map((one) => one.charCodeAt(0)), 4);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, crc32(bytes.subarray(4, content.length + 8)));
  return bytes;
}

// The table of areas, with the columns of skystill predict --areas. A name that a spreadsheet takes for a formula gets
// an apostrophe.
function toCsv({ counts, areas }, classes) {
  const plain = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);
  const cell = (text) => plain(text).replace(/.*[",\n\r].*/s, (one) => `"${one.replaceAll('"', '""')}"`);
  const total = Math.max(1, counts.slice(0, classes.length).reduce((sum, one) => sum + one, 0));
  const rows = classes.map(({ name }, i) => [
    cell(name), counts[i], (counts[i] / total).toFixed(6), areas ? (areas[i] / 1e4).toFixed(4) : ""]);
  const all = [["class", "pixels", "share", "hectares"], ...rows, ["no data", counts[NODATA], "", ""]];
  return new Blob([all.map((row) => row.join()).join("\r\n"), "\r\n"], { type: "text/csv" });
}
