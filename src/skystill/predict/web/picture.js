"use strict";
// JPEG and WebP, decoded by the browser. What a browser would show although it is damaged or other than its pixels is
// refused.

const STRIP_PIXELS = 2 ** 22; // a canvas of a whole large picture may be larger than a browser allows

// `check` is called with the size that the file tells, before it is decoded.
async function openPicture(file, kind, check) {
  checkReadback();
  const bytes = new Uint8Array(await file.arrayBuffer());
  check(kind === "image/jpeg" ? checkJpeg(bytes) : checkWebp(bytes));
  const bitmap = await decoded(new Blob([bytes], { type: kind }));
  const { width, height } = bitmap;
  return {
    width, height, count: 3, bits: 8, kind: "uint8", geo: null, inverted: false, palette: null,
    colors: ["red", "green", "blue"], descriptions: ["", "", ""], nodata: [null, null, null],
    read: (numbers) => readBitmap(bitmap, numbers),
  };
}

async function decoded(blob) {
  try {
    return await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    return refuse(TEXT.undecodable);
  }
}

// Planes of a picture, band after band, from RGBA of the browser.
function readBitmap(bitmap, numbers) {
  const { width, height } = bitmap;
  const size = width * height;
  const planes = new Uint8Array(numbers.length * size);
  const rows = Math.max(1, Math.floor(STRIP_PIXELS / width));
  for (let top = 0; top < height; top += rows) {
    const rgba = pixelsOf(bitmap, top, Math.min(rows, height - top));
    for (let i = 0; i < rgba.length; i += 4) {
      if (rgba[i + 3] !== 255) refuse(TEXT.transparent);
      for (let band = 0; band < numbers.length; band++) {
        planes[band * size + top * width + (i >> 2)] = rgba[i + numbers[band] - 1];
      }
    }
  }
  bitmap.close();
  return planes;
}

function pixelsOf(bitmap, top, rows) {
  const canvas = new OffscreenCanvas(bitmap.width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, -top);
  return context.getImageData(0, 0, bitmap.width, rows).data;
}

// Protection against fingerprinting changes a few of the pixels that a page reads: look with a known pattern.
function checkReadback() {
  const side = 64;
  const known = Uint8ClampedArray.from({ length: 4 * side * side },
    (_, i) => (i % 4 === 3 ? 255 : (i * 89 + (i >> 6) * 7) & 255));
  const context = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
  context.putImageData(new ImageData(known, side, side), 0, 0);
  const seen = context.getImageData(0, 0, side, side).data;
  if (known.some((value, i) => value !== seen[i])) refuse(TEXT.noise);
}

// A JPEG must have its end, and one or three components of 8 bits. A browser shows the rest of a cut one as grey.
// Returns its size.
function checkJpeg(bytes) {
  let at = 2;
  let size = { width: 0, height: 0 };
  while (at + 4 <= bytes.length) {
    const marker = bytes[at] === 0xff ? bytes[at + 1] : refuse(TEXT.damaged("its markers are not in place"));
    if (marker === 0xff) { at += 1; continue; }
    if (marker === 0xd9) return size;
    const length = bytes[at + 2] * 256 + bytes[at + 3];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      if (bytes[at + 9] === 4) refuse(TEXT.cmyk);
      if (bytes[at + 4] !== 8) refuse(TEXT.undecodable);
      size = { height: bytes[at + 5] * 256 + bytes[at + 6], width: bytes[at + 7] * 256 + bytes[at + 8] };
    }
    at += 2 + length;
    if (marker !== 0xda) continue;
    while (at + 1 < bytes.length && (bytes[at] !== 0xff || bytes[at + 1] === 0 ||
      (bytes[at + 1] >= 0xd0 && bytes[at + 1] <= 0xd7))) at++; // within a scan, 0xff is followed by 0 or a restart
  }
  return bytes[at] === 0xff && bytes[at + 1] === 0xd9 ? size : refuse(TEXT.damaged("its end is missing"));
}

// Returns the size of a WebP.
function checkWebp(bytes) {
  const view = new DataView(bytes.buffer);
  let found = { width: 0, height: 0 };
  if (view.getUint32(4, true) + 8 > bytes.length) refuse(TEXT.damaged("its end is missing"));
  for (let at = 12; at + 8 <= bytes.length;) {
    const kind = String.fromCharCode(...bytes.subarray(at, at + 4));
    const size = view.getUint32(at + 4, true);
    if (kind === "EXIF" && exifOrientation(bytes.slice(at + 8, at + 8 + size)) !== 1) refuse(TEXT.turned);
    if (kind === "ANIM") refuse(TEXT.undecodable);
    if (kind === "VP8 " && at + 18 <= bytes.length) {
      found = { width: view.getUint16(at + 14, true) & 0x3fff, height: view.getUint16(at + 16, true) & 0x3fff };
    } else if (kind === "VP8L" && at + 13 <= bytes.length) {
      const packed = view.getUint32(at + 9, true); // 14 bits each
      found = { width: (packed & 0x3fff) + 1, height: ((packed >> 14) & 0x3fff) + 1 };
    }
    at += 8 + size + (size % 2);
  }
  return found;
}
