"use strict";
// A ZIP of all results. Its files are packed already, so they are stored as they are.

const ZIP_LIMIT = 2 ** 32 - 1; // bytes; more needs an extension that not every program reads
const ZIP_FILES = 65534;
const ZIP_READ = 2 ** 22; // bytes whose check sum is made at once

async function crcOf(blob) {
  let crc = 0;
  for (let at = 0; at < blob.size; at += ZIP_READ) {
    crc = crc32(new Uint8Array(await blob.slice(at, at + ZIP_READ).arrayBuffer()), crc);
  }
  return crc;
}

// A ZIP of files, { name, blob } each, that `files` gives one after the other.
async function toZip(files) {
  const [parts, central] = [[], []];
  let at = 0;
  for await (const { name, blob } of files) {
    const bytes = new TextEncoder().encode(name);
    const own = [20, 0x0800, 0, 0, 0x21]; // version, names in UTF-8, stored, and the first day that a ZIP knows
    const sizes = [await crcOf(blob), blob.size, blob.size];
    const lengths = [bytes.length, 0];
    central.push(record([0x02014b50], [20, ...own], sizes, [...lengths, 0, 0, 0], [0, at]), bytes);
    parts.push(record([0x04034b50], own, sizes, lengths), bytes, blob);
    at += 30 + bytes.length + blob.size;
    if (at > ZIP_LIMIT || central.length > 2 * ZIP_FILES) refuse(TEXT.zipTooLarge);
  }
  const size = central.reduce((sum, part) => sum + part.byteLength, 0);
  const count = central.length / 2;
  const end = record([0x06054b50], [0, 0, count, count], [size, at], [0]);
  return new Blob([...parts, ...central, end], { type: "application/zip" });
}

// Lists of numbers as bytes, by turns of 4 and of 2 bytes each.
function record(...lists) {
  const bytes = lists.flatMap((list, i) => list.flatMap((value) =>
    Array.from({ length: i % 2 ? 2 : 4 }, (_, place) => Math.floor(value / 256 ** place) % 256)));
  return Uint8Array.from(bytes);
}

// Class map and areas of each image, in its folder. Of two images that differ in their endings, both names keep theirs.
async function* results(done) {
  const taken = new Set();
  for (const { name, picture, labels, counts, areas } of done) {
    let base = name.replace(/\.[^./]*$/, "");
    if (taken.has(base)) base = name;
    for (let i = 2; taken.has(base); i++) base = `${name}-${i}`;
    taken.add(base);
    const given = { geo: picture.geo, labels, counts, areas };
    yield { name: `${base}-classes.tif`, blob: await toGeotiff(given, CLASSES) };
    yield { name: `${base}-areas.csv`, blob: toCsv(given, CLASSES) };
  }
}

async function saveAll() {
  await saveAs(TEXT.zipName, () => toZip(results(entries.filter((one) => one.finished))));
}
