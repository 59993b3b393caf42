"use strict";
// Every sentence of the page that is not in page.html. A refusal says what happened, what was expected, how to mend it.

const AGAIN = "Write it as a tiled GeoTIFF: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT.tif";
const COMMAND = "skystill predict reads it.";

const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

const TEXT = {
  opening: "Opening the model …",
  ready: "Ready. Drop images here, or choose them.",
  runs: (workers, threads) => `It runs here in at most ${counted(workers, "worker")}, of ` +
    `${counted(threads, "thread")} each.`,
  limits: (parts, whole) => `Of a TIFF up to ${parts.toLocaleString("en")} megapixels are read, part by part; of ` +
    `other files up to ${whole.toLocaleString("en")}, all at once.`,
  reading: (name) => `Reading ${name} …`,
  running: (name) => `Labelling ${name} …`,
  done: (name, seconds) => `${name} is labelled, in ${seconds} s.`,
  stopped: (name) => `${name} was stopped. Its unfinished class map is not kept.`,
  refused: (name, why) => `${name}: ${why}`,
  waiting: "waiting",
  example: "The example is a drawn scene: a model that learnt from photographs may label it wrongly.",
  left: (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s left` : `${Math.ceil(seconds / 60)} min left`),
  saved: (name) => `${name} was saved.`,
  compare: (name) => `Run ${name} on the part that is shown`,
  comparing: (name) => `Running ${name} …`,
  compared: (name) => `${name} is done. Where its classes differ is shown in red.`,
  comparingStopped: (name) => `${name} was stopped. What it has done is kept.`,
  comparingFailed: (name, why) => `${name} failed: ${why}`,
  comparison: (names, times, { known, equal }) => {
    const [own, other] = times.map((ms) => `${(ms / 1000).toFixed(2)} s per megapixel`);
    const factor = times[1] / times[0];
    const slower = factor >= 1 ? `${factor.toFixed(1)} times as long` : `${(1 / factor).toFixed(1)} times as fast`;
    return `${names[0]}: ${own}. ${names[1]}: ${other}, ${slower}. They give the same class to ` +
      `${((100 * equal) / known).toFixed(1)} % of the ${known.toLocaleString("en")} pixels that both have labelled.`;
  },
  underOther: (name, label) => `; ${name}: ${label}`,
  listed: (folder, images, { mask, other, hidden }) => {
    const passed = [[mask, "mask"], [other, "other file"], [hidden, "hidden file"]].filter(([files]) => files.length)
      .map(([files, what]) => counted(files.length, what));
    const found = images ? counted(images, "image") : "no JPEG, PNG, WebP or TIFF";
    return `${folder}: ${found}${passed.length ? `; passed over: ${passed.join(", ")}` : ""}.`;
  },
  notListed: (why) => `The folder cannot be listed (${why}). Press "Choose a folder", or drop its images.`,
  allTooMany: (limit) => `together with the images before it, it has more than the ${limit} megapixels that this ` +
    "browser has memory for. Save their class maps, load the page again, and choose the rest.",
  zipName: "class-maps.zip",
  zipTooLarge: "all class maps together are more than 4 GB, or more than 32,000. Save the images one after the other.",
  saving: (name) => `Making ${name} …`,
  notSaved: (name, why) => `${name} was not saved: ${why}`,
  noPolygons: (why) => `its polygons cannot be made (${why}). skystill predict --vector geojson makes them.`,
  noLonLat: (crs) => `GeoJSON is in longitude and latitude, which this page computes for WGS 84, ETRS 89, their UTM ` +
    `zones and web Mercator; this is ${crs}. skystill predict --vector geojson converts every CRS.`,
  beyond: "it reaches beyond longitude 180 or the poles. skystill predict --vector geojson cuts its polygons there.",
  inPixels: " It is not placed on the ground: the polygons are in pixels, right and down from its upper left corner.",
  noClass: "no data",
  away: "",
  under: (name, percent, row, column) =>
    `${name}${percent === null ? "" : `, ${percent} %`} (row ${row}, column ${column})`,
  total: (pixels, name, crs) => `${name}: ${pixels}${crs ? `, ${crs}` : ""}`,
  noHectares: (crs) => `Hectares are given for WGS 84, UTM and web Mercator; this is ${crs}. ` +
    "skystill predict --areas gives them for every CRS.",
  resolution: (own, trained) => `It has ${own} m per pixel, and the model was trained at ${trained} m. ` +
    `skystill predict --resolution ${trained} resamples it.`,

  noSimd: "This browser has no WebAssembly SIMD, which the model needs. Take a browser of 2022 or later " +
    "(Chrome, Edge or Firefox 91, Safari 16.4).",
  noUnpack: "This browser cannot unpack what is in this page (DecompressionStream). Take a browser of 2023 or later " +
    "(Chrome, Edge, Firefox 113, Safari 16.4).",
  modelFailed: (why) => `The model cannot be opened in this browser (${why}).`,
  noPart: (file) => `a part of this page, ${file}, cannot be loaded from its server, or is not what was exported. ` +
    "Load the page again. If that does not help, copy the whole folder to the server again.",
  notFinite: "the model answers with values that are not finite. Export the page again from a sound model file.",
  tileFailed: (why) => `the model fails on it (${why}).`,

  unknownKind: "it is no JPEG, PNG, WebP or TIFF. Convert it to one of them.",
  gone: "it cannot be read any more: it was moved, deleted or changed. Choose it again.",
  empty: "the file is empty. Take a whole copy of it.",
  damaged: (why) => `it is damaged: ${why}. Take a whole copy of it.`,
  tooLarge: (width, height, bytes, limit) => `${width} x ${height} pixels take ${bytes} MB; this page reads up to ` +
    `${limit} MB, which are decoded at once. ${COMMAND}`,
  largeBlocks: (width, height, bytes, limit) => `it is stored in blocks of ${bytes} MB, and this page decodes up to ` +
    `${limit} MB at once. ${AGAIN}`,
  tooMany: (width, height, limit) => `${width} x ${height} pixels are more than the ${limit} megapixels that this ` +
    `browser has memory for. ${COMMAND}`,
  undecodable: "the browser cannot decode it. " + AGAIN,
  noise: "this browser changes the pixels that a page reads (protection against fingerprinting), so the classes " +
    "would be wrong. Use a PNG, or a GeoTIFF without JPEG compression, or allow this page to read them.",
  transparent: "it has transparent pixels, whose colours a browser changes. Save it as PNG or GeoTIFF.",
  turned: "it is stored sideways (EXIF orientation). Save it upright, or as JPEG.",
  cmyk: "it holds four inks (CMYK). Save it as RGB.",
  deep: (kind) => `it holds ${kind}, and the network is fed colours in 8 bits. Write it in 8 bits, with the values ` +
    `that shall be black and white: gdal_translate -ot Byte -scale LOW HIGH IN OUT.tif. ${COMMAND}`,
  wrongKind: (kind, wanted) => `it holds ${kind}, and the network is fed ${wanted}: its values are probably on ` +
    "another scale. Write it on the scale of the training images, in their data type (gdal_translate -ot -scale).",
  twoBands: "it has two bands; an image has three (RGB), or one (grey). Write the grey one alone: " +
    "gdal_translate -b 1 IN OUT.",
  onlyAlpha: "it has only a band of transparency. Write the grey band alone: gdal_translate -b 1 IN OUT.",
  lacking: (lacking, has, wanted) => `it has no band ${lacking}; it has ${has}. The network is fed ${wanted}. ` +
    "Write a raster with these bands: gdal_translate -b. skystill predict --bands says which bands these are.",
  twice: (numbers, wanted) => `its bands ${numbers} would be ${wanted}: one of them twice. ` +
    "skystill predict --bands says which bands these are.",
  sameName: (numbers, name) => `its bands ${numbers} are all called ${name}. ` +
    "skystill predict --bands says which is meant.",
  asRgb: (numbers, count, called) => `Bands ${numbers} of ${count} are taken as red, green and blue` +
    `${called ? `, and are called ${called}` : ""}.`,
  byPlace: (numbers, count, labels) => `Bands ${numbers} of ${count} are taken as ${labels}, by place and not by name.`,
  byName: (numbers, count, labels) => `Bands ${numbers} of ${count} are ${labels} by their names.`,
  otherScale: (band, own, low, high) => `${band} is about ${own}, and was ${low} to ${high} in the training images: ` +
    "its values are on another scale, or it is another band. Write the raster on the scale of the training images.",
  partOutside: (percent, band, low, high) => `${percent} % of the values of ${band} lie outside those of the ` +
    `training images (${low} to ${high}).`,
  noPixels: "it has no pixel with data. Check its nodata value, mask or transparency.",

  tiffColors: (kind) => `its colours are ${kind}, which this page does not read. Write it as RGB. ${COMMAND}`,
  tiffPacked: (code) => `it is compressed by a method that this page does not read (${code}). ${AGAIN}`,
  tiffBits: (stored) => `its values are ${stored}; this page reads whole numbers of 8, 16 and 32 bits, and floats of ` +
    `32 and 64. ${COMMAND}`,
  otherColors: (color) => `it has a band of ${color}, not red, green and blue. Write it as RGB first.`,
  tiffOrder: "its 16-bit values are packed in the order of another processor. " + AGAIN,
};
