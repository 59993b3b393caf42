"use strict";
// Which bands of a raster a network is fed: the rules of skystill.raster.band_names and skystill.raster.bands.
// tests/web compares band names. A raster here has `colors` (what GDAL calls the colour interpretation of each band,
// in lower case) and `descriptions`.

class Refused extends Error {}

const refuse = (why) => { throw new Refused(why); };

const COLOR_NAMES = new Set(
  ["red", "green", "blue", "nir", "rededge", "swir", "coastal", "pan", "mwir", "lwir", "tir"]);
const KNOWN = [ // the first that fits is the name: "red edge" is not red
  [/red[ _-]?edge[ _-]?(\d*)/, "rededge"],
  [/\bcoastal\b/, "coastal"],
  [/\b(?:near[ _-]?infra[ _-]?red|near[ _-]?ir|nir)[ _-]?(\d*)\b/, "nir"],
  [/\b(?:short[ _-]?wave[ _-]?infra[ _-]?red|swir)[ _-]?(\d*)\b/, "swir"],
  [/\b(?:pan|panchromatic)\b/, "pan"],
  [/\bdeep[ _-]?(\w+)/, "deep"],
  [/\bfar[ _-]?(\w+)/, "far"],
  [/\bred\b/, "red"],
  [/\bgreen\b/, "green"],
  [/\bblue\b/, "blue"],
];
const CODE = /\bb(?:and)?[ _-]?0*(\d+a?)\b/;
const INKS = ["cyan", "magenta", "yellow", "black"];
const OTHER_COLORS = ["hue", "saturation", "lightness", "ycbcr_y", "ycbcr_cb", "ycbcr_cr", "palette"];
const OTHER_BANDS = /edge|coastal|deep|far|infra|near|nir/;

function bandName(text) {
  const plain = text.trim().toLowerCase().replace(/\binfra[ _-]red\b/g, "infrared");
  for (const [pattern, name] of KNOWN) {
    const found = plain.match(pattern);
    if (found) return name + (found[1] ?? "");
  }
  const code = plain.match(CODE);
  return code ? `b${code[1]}` : plain;
}

function describedNames(text) {
  const plain = (text ?? "").trim().toLowerCase();
  if (!plain || /^(?:(?:band|layer|channel)[ _-]?\d+|\d+)$/.test(plain) || plain.includes("alpha")) return [];
  const code = plain.match(CODE);
  return [...new Set([bandName(plain), ...(code ? [`b${code[1]}`] : []), plain])];
}

function namesOf(raster) {
  const described = raster.descriptions.map(describedNames);
  const taken = new Set(described.flat());
  const colors = raster.colors.map((color) => (COLOR_NAMES.has(color) ? color : ""));
  const once = (name) => colors.filter((color) => color === name).length === 1;
  return described.map((names, i) => {
    if (names.length) return names;
    return colors[i] && !taken.has(colors[i]) && once(colors[i]) ? [colors[i]] : [];
  });
}

// Number of the band of transparency, or null. The first band is 1.
function alphaOf(raster) {
  const place = /^(?:band|layer|channel|b)?[ _-]?\d+$/;
  const found = raster.colors.findIndex((color, i) => {
    const text = (raster.descriptions[i] ?? "").toLowerCase();
    return color === "alpha" && (!text || text.includes("alpha") || text.includes("mask") || place.test(text.trim()));
  });
  return found < 0 ? null : found + 1;
}

function describedColors(descriptions) {
  const names = descriptions.map((text) => (text ?? "").toLowerCase()).map((t) => (OTHER_BANDS.test(t) ? "" : t));
  const numbers = ["red", "green", "blue"].map((color) => {
    const found = names.flatMap((name, i) => (new RegExp(`\\b${color}\\b`).test(name) ? [i + 1] : []));
    return found.length === 1 ? found[0] : null;
  });
  return numbers.includes(null) || new Set(numbers).size < 3 ? null : numbers;
}

// The bands of a raster that are red, green and blue, or its grey band.
function chooseColors(raster) {
  const { colors, count } = raster;
  const alpha = alphaOf(raster);
  const data = Array.from({ length: count }, (_, i) => i + 1).filter((number) => number !== alpha);
  const described = describedColors(raster.descriptions);
  if (!described && INKS.every((ink) => colors.includes(ink))) refuse(TEXT.tiffColors("inks"));
  const strange = raster.palette ? null : colors.find((color) => OTHER_COLORS.includes(color));
  if (strange) refuse(TEXT.otherColors(strange));
  const named = ["red", "green", "blue"].map((color) => colors.indexOf(color) + 1);
  const numbers = described ?? (named.includes(0) ? null : named) ?? byPlace(data);
  const plain = numbers.join() === "1,2,3" || numbers.join() === "1";
  const names = numbers.map((number) => (raster.descriptions[number - 1] ?? "").trim());
  const called = !described && numbers.length === 3 && saysOtherwise(names, numbers)
    ? names.map((name) => name || "nothing").join(", ") : "";
  const notes = called || data.length > numbers.length || !plain ? [TEXT.asRgb(numbers.join(", "), count, called)] : [];
  return { numbers, alpha, notes };
}

// Whether descriptions of bands say something else than that they are counted, or are red, green and blue.
function saysOtherwise(names, numbers) {
  const plain = names.map((name) => name.toLowerCase());
  const counted = plain.every((name, i) => new RegExp(`^(?:(?:band|layer|channel)[ _-]?)?0*${numbers[i]}$`).test(name));
  return plain.some(Boolean) && !counted && plain.join() !== "r,g,b";
}

function byPlace(data) {
  if (data.length === 2) refuse(TEXT.twoBands);
  if (!data.length) refuse(TEXT.onlyAlpha);
  return data.length === 1 ? data : data.slice(0, 3);
}

// The bands of a raster that a spec names: by name where the raster names them, otherwise by place.
function matchBands(raster, spec) {
  const names = namesOf(raster);
  const alpha = alphaOf(raster);
  const labels = spec.bands.map((band) => band.label);
  const placed = [];
  const numbers = spec.bands.map((band) => {
    const named = band.name ? numberOf(names, band.name) : null;
    if (named !== null) return named;
    const here = band.number >= 1 && band.number <= raster.count && band.number !== alpha;
    if (!here || (band.name && names[band.number - 1].length)) return null;
    placed.push(band.label);
    return band.number;
  });
  const lacking = labels.filter((_, i) => numbers[i] === null);
  if (lacking.length) refuse(TEXT.lacking(lacking.join(", "), describeBands(raster), labels.join(", ")));
  const listed = numbers.join(", ");
  if (new Set(numbers).size < numbers.length) refuse(TEXT.twice(listed, labels.join(", ")));
  const moved = spec.bands.some((band, i) => band.number !== numbers[i]);
  const notes = [];
  if (placed.length) notes.push(TEXT.byPlace(listed, raster.count, labels.join(", ")));
  else if (moved) notes.push(TEXT.byName(listed, raster.count, labels.join(", ")));
  return { numbers, alpha: numbers.includes(alpha) ? null : alpha, notes };
}

function numberOf(names, name) {
  const all = names.flatMap((own, i) => (own.includes(name) ? [i + 1] : []));
  const first = names.flatMap((own, i) => (own[0] === name ? [i + 1] : []));
  const found = first.length === 1 ? first : all;
  if (found.length > 1) refuse(TEXT.sameName(found.join(", "), name));
  return found[0] ?? null;
}

function describeBands(raster) {
  const alpha = alphaOf(raster);
  const words = namesOf(raster).map((names, i) => (i + 1 === alpha ? "transparency" : names[0] ?? "unnamed"));
  return `${raster.count} ${raster.count === 1 ? "band" : "bands"}: ${words.join(", ")}`;
}
