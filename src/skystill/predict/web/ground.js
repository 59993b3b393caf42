"use strict";
// The area of pixels on the ellipsoid, for WGS 84, UTM and web Mercator, and the name of the CRS.

const A = 6378137; // metres; GRS 80 and WGS 84 differ by 0.1 mm in the other half axis
const E2 = 0.00669437999014;
const DEGREES = new Set([4326, 4258, 4269, 7844, 4283, 6318]);

// Keys of the GeoTIFF standard by number, and the coefficients a to f of columns and rows to x and y.
function placeFrom(geo) {
  const keys = {};
  for (let i = 4; i + 3 < (geo[34735]?.length ?? 0); i += 4) {
    const [key, location, , value] = geo[34735].slice(i, i + 4);
    if (!location) keys[key] = value;
  }
  const [scale, tie, matrix] = [geo[33550], geo[33922], geo[34264]];
  if (scale?.[0] && scale[1]) return { keys, to: tie?.length >= 6 ? fromTie(scale[0], Math.abs(scale[1]), tie) : null };
  return { keys, to: matrix?.length === 16 ? [0, 1, 3, 4, 5, 7].map((place) => matrix[place]) : null };
}

// The first row lies north, even where the height of a pixel is stored as negative: GDAL reads it so.
const fromTie = (across, down, tie) => [across, 0, tie[3] - tie[0] * across, 0, -down, tie[4] + tie[1] * down];

function crsName({ keys }) {
  const code = [keys[3072], keys[2048]].find((one) => one && one !== 32767);
  return code ? `EPSG:${code}` : Object.keys(keys).length ? "a CRS without a number" : "";
}

// The CRS, and what else stands against areas and coordinates.
function groundName(place) {
  const name = crsName(place) || "none of them";
  if (!place.to) return `${name}, placed by control points or not at all`;
  if (place.to[1] || place.to[3]) return `${name}, turned against its grid`;
  return name.startsWith("EPSG") && codeOf(place.keys) === null ? `${name} in its own unit` : name;
}

// The code of the CRS, or null where another unit than metres or degrees is told beside it.
function codeOf(keys) {
  const [code, unit, usual] = keys[1024] === 2 ? [keys[2048], keys[2054], 9102] : [keys[3072], keys[3076], 9001];
  return code && (unit ?? usual) === usual ? code : null;
}

// The area of a pixel in square metres, by row or by column of the raster: { byRow, at(row, column) }. Null where this
// page does not know it.
function pixelArea(geo) {
  const place = geo && placeFrom(geo);
  if (!place?.to || place.to[1] || place.to[3]) return null;
  const [dx, , x0, , dy, y0] = place.to;
  const plane = Math.abs(dx * dy);
  const half = place.keys[1025] === 2 ? 0 : 0.5; // "pixel is point": the tie point is the centre of a pixel
  const latitudeAt = (row) => y0 + dy * (row + half);
  const code = codeOf(place.keys);
  if (place.keys[1024] === 2 && DEGREES.has(code)) {
    const at = (row) => plane * (Math.PI / 180) ** 2 * perSquareRadian((latitudeAt(row) * Math.PI) / 180);
    return { byRow: true, at };
  }
  if (code === 3857) {
    const at = (row) => {
      const latitude = 2 * Math.atan(Math.exp(latitudeAt(row) / A)) - Math.PI / 2;
      return (plane * perSquareRadian(latitude) * Math.cos(latitude)) / A ** 2;
    };
    return { byRow: true, at };
  }
  if (!isUtm(code)) return null;
  return { byRow: false, at: (row, column) => plane / utmScale(code, x0 + dx * (column + half), latitudeAt(row)) ** 2 };
}

function perSquareRadian(latitude) {
  return (A ** 2 * (1 - E2) * Math.cos(latitude)) / (1 - E2 * Math.sin(latitude) ** 2) ** 2;
}

const isUtm = (code) => [[32601, 32660], [32701, 32760], [25828, 25838], [26901, 26923]].some(
  ([first, last]) => code >= first && code <= last);

// The scale of UTM at a place: 0.9996 in the middle of a zone, and larger to its sides.
function utmScale(code, x, y) {
  const north = code >= 32701 && code <= 32760 ? y - 1e7 : y;
  const latitude = north / 0.9996 / 6367449; // of the meridian; the scale changes by 1e-5 for its error
  const radius2 = (A ** 2 * (1 - E2)) / (1 - E2 * Math.sin(latitude) ** 2) ** 2;
  const way2 = ((x - 5e5) / 0.9996) ** 2 / radius2;
  return 0.9996 * (1 + way2 / 2 + way2 ** 2 / 24);
}

// A function from x and y of the CRS to longitude and latitude of WGS 84 in degrees, or null where this page does not
// know it. ETRS 89 is taken for WGS 84, as PROJ does.
function toLonLat({ keys }) {
  const code = codeOf(keys);
  if (keys[1024] === 2) return code === 4326 || code === 4258 ? (x, y) => [x, y] : null;
  const degrees = 180 / Math.PI;
  if (code === 3857) return (x, y) => [(x / A) * degrees, (2 * Math.atan(Math.exp(y / A)) - Math.PI / 2) * degrees];
  const isKnown = isUtm(code) && (code < 26901 || code > 26923);
  return isKnown ? (x, y) => fromUtm(code, x, y).map((angle) => angle * degrees) : null;
}

// Krueger's series to the fourth order: its error is far below a millimetre.
function fromUtm(code, x, y) {
  const flattening = 1 - Math.sqrt(1 - E2);
  const n = flattening / (2 - flattening);
  const radius = (A / (1 + n)) * (1 + n ** 2 / 4 + n ** 4 / 64) * 0.9996;
  const beta = [n / 2 - (2 / 3) * n ** 2 + (37 / 96) * n ** 3 - n ** 4 / 360,
    n ** 2 / 48 + n ** 3 / 15 - (437 / 1440) * n ** 4, (17 / 480) * n ** 3 - (37 / 840) * n ** 4,
    (4397 / 161280) * n ** 4];
  const delta = [2 * n - (2 / 3) * n ** 2 - 2 * n ** 3 + (116 / 45) * n ** 4,
    (7 / 3) * n ** 2 - (8 / 5) * n ** 3 - (227 / 45) * n ** 4, (56 / 15) * n ** 3 - (136 / 35) * n ** 4,
    (4279 / 630) * n ** 4];
  const [up, across] = [(code >= 32701 && code <= 32760 ? y - 1e7 : y) / radius, (x - 5e5) / radius];
  let [xi, eta] = [up, across];
  beta.forEach((part, i) => {
    const times = 2 * (i + 1);
    xi -= part * Math.sin(times * up) * Math.cosh(times * across);
    eta -= part * Math.cos(times * up) * Math.sinh(times * across);
  });
  const chi = Math.asin(Math.sin(xi) / Math.cosh(eta));
  const latitude = delta.reduce((sum, part, i) => sum + part * Math.sin(2 * (i + 1) * chi), chi);
  const middle = ((code % 100) * 6 - 183) * (Math.PI / 180);
  return [middle + Math.atan2(Math.sinh(eta), Math.cos(xi)), latitude];
}
