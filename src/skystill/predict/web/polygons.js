"use strict";
// The worker that turns labels into polygons: one for each set of pixels of the same label that are neighbours by a
// side, as skystill predict makes them. Edges are those of the pixels.

const UNCUT = 128; // pixels: longer edges get further vertices where straight lines of the raster are curves
const WRITTEN = 2000; // features that become text at once
const [EAST, SOUTH, WEST, NORTH] = [0, 1, 2, 3];
const STEPS = [[1, 0], [0, 1], [-1, 0], [0, -1]];

let map; // the labels, with a border of NODATA: { width, height, labels, line }

onmessage = ({ data }) => {
  try {
    if (data.width) {
      const line = data.width + 2;
      map = { ...data, line, labels: new Uint8Array(line * (data.height + 2)).fill(NODATA) };
      postMessage({});
    } else if (data.labels) {
      putTile(data);
      postMessage({});
    } else postMessage({ blob: toGeoJson(map, data) });
  } catch (error) {
    postMessage({ why: error instanceof Refused ? error.message : TEXT.noPolygons(error.message || String(error)) });
  }
};

function putTile({ tile, labels }) {
  const columns = tile.right - tile.left;
  for (let row = tile.top; row < tile.bottom; row++) {
    const from = (row - tile.top) * columns;
    map.labels.set(labels.subarray(from, from + columns), (row + 1) * map.line + tile.left + 1);
  }
}

// Numbers that grow. `at` are they, without a copy.
class Numbers {
  constructor(Kind = Int32Array) {
    this.at = new Kind(1024);
    this.length = 0;
  }

  push(value) {
    if (this.length === this.at.length) {
      const larger = new this.at.constructor(2 * this.length);
      larger.set(this.at);
      this.at = larger;
    }
    this.at[this.length++] = value;
  }
}

function toGeoJson(raster, { geo, classes, rows }) {
  const place = placement(geo);
  const pieces = findPieces(raster, pixelArea(geo), rows);
  const parts = ['{"type": "FeatureCollection", "features": ['];
  let text = [];
  let before = "\n";
  findPolygons(raster, pieces, (root, label, rings) => {
    const about = { class: classes[label].name, label, area_m2: pieces.areas ? pieces.areas.at[root] : null };
    const coordinates = rings.map((ring, i) => writtenRing(ring, place, i === 0)).join(", ");
    text.push(`${before}{"type": "Feature", "properties": ${JSON.stringify(about)}, "geometry": ` +
      `{"type": "Polygon", "coordinates": [${coordinates}]}}`);
    before = ",\n";
    if (text.length < WRITTEN) return;
    parts.push(new Blob([text.join("")]));
    text = [];
  });
  return new Blob([...parts, ...text, "\n]}\n"], { type: "application/geo+json" });
}

// Runs of equal labels in rows, and the set to which each belongs: `parents` leads to the first run of a set. `areas`
// are the square metres of the sets, or null; `ends` are their last rows.
function findPieces({ width, height, labels, line }, area, rows) {
  const [starts, firsts, parents] = [new Numbers(), new Numbers(), new Numbers()];
  const areas = area ? new Numbers(Float64Array) : null;
  let upTo = null; // square metres of a row up to a column; constant within a row of tiles, as in the table
  for (let row = 0; row < height; row++) {
    firsts.push(starts.length);
    if (area && !area.byRow && row % rows === 0) upTo = summed(width, (column) => area.at(row, column));
    const at = (row + 1) * line + 1;
    let above = row ? firsts.at[row - 1] : 0;
    for (let column = 0; column < width;) {
      const label = labels[at + column];
      const start = column;
      while (column < width && labels[at + column] === label) column++;
      const run = starts.length;
      starts.push(start);
      parents.push(run);
      areas?.push(area.byRow ? (column - start) * area.at(row) : upTo[column] - upTo[start]);
      if (!row) continue;
      const end = firsts.at[row];
      while (above + 1 < end && starts.at[above + 1] <= start) above++;
      for (let other = above; other < end && starts.at[other] < column; other++) {
        if (labels[at - line + Math.max(starts.at[other], start)] === label) join(parents.at, other, run);
      }
    }
  }
  firsts.push(starts.length);
  const ends = new Int32Array(starts.length);
  for (let run = 0, row = 0; run < starts.length; run++) {
    while (firsts.at[row + 1] <= run) row++;
    const root = rootOf(parents.at, run);
    ends[root] = row;
    if (areas && root !== run) areas.at[root] += areas.at[run];
  }
  return { starts: starts.at, firsts: firsts.at, parents: parents.at, ends, areas };
}

function summed(width, at) {
  const sums = new Float64Array(width + 1);
  for (let column = 0; column < width; column++) sums[column + 1] = sums[column] + at(column);
  return sums;
}

function rootOf(parents, run) {
  let root = run;
  while (parents[root] !== root) root = parents[root];
  while (parents[run] !== root) [run, parents[run]] = [parents[run], root];
  return root;
}

function join(parents, one, other) {
  const [a, b] = [rootOf(parents, one), rootOf(parents, other)];
  parents[Math.max(a, b)] = Math.min(a, b);
}

// The set of a pixel.
function setOf({ starts, firsts, parents }, row, column) {
  let [low, high] = [firsts[row], firsts[row + 1] - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle] <= column) low = middle;
    else high = middle - 1;
  }
  return rootOf(parents, low);
}

// Call `take` with each set, its label and its rings, the outer one first: it has the topmost edge of the set. A set is
// given away after its last row, so that not all of them are held.
function findPolygons(raster, pieces, take) {
  const { width, height, labels, line } = raster;
  const seen = new Uint8Array(Math.ceil((width * height) / 8)); // upper edges of pixels
  const found = new Map();
  const ending = Array.from({ length: height }, () => []); // the sets by their last rows
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const at = (row + 1) * line + column + 1;
      const label = labels[at];
      const bit = row * width + column;
      if (label === NODATA || labels[at - line] === label || (seen[bit >> 3] >> (bit & 7)) & 1) continue;
      const root = setOf(pieces, row, column);
      const ring = traced(raster, pieces, seen, row, column);
      if (!found.has(root)) {
        found.set(root, { label, rings: [] });
        ending[pieces.ends[root]].push(root);
      }
      found.get(root).rings.push(ring);
    }
    for (const root of ending[row]) {
      const { label, rings } = found.get(root);
      take(root, label, rings);
      found.delete(root);
    }
  }
}

// Follow a ring from the upper edge of a pixel, with its set on the right hand. Corners as [x, y, x, y, ...].
function traced(raster, pieces, seen, row, column) {
  const { width, labels, line } = raster;
  const label = labels[(row + 1) * line + column + 1];
  const ring = new Numbers();
  let [x, y, way] = [column, row, EAST];
  do {
    if (way === EAST) seen[(y * width + x) >> 3] |= 1 << ((y * width + x) & 7);
    x += STEPS[way][0];
    y += STEPS[way][1];
    // The pixels ahead, on the right and on the left hand; those around a corner are at x or x - 1, and y or y - 1.
    const right = [x - (way === SOUTH || way === WEST), y - (way === WEST || way === NORTH)];
    const left = [x - (way === WEST || way === NORTH), y - (way === EAST || way === NORTH)];
    const isRight = labels[(right[1] + 1) * line + right[0] + 1] === label;
    const isLeft = labels[(left[1] + 1) * line + left[0] + 1] === label;
    let turn = isRight ? (isLeft ? -1 : 0) : 1;
    if (!isRight && isLeft) { // two pixels that touch at a corner: one set goes on, so that its holes are rings
      const own = [x - (way === EAST || way === SOUTH), y - (way === SOUTH || way === WEST)];
      turn = setOf(pieces, own[1], own[0]) === setOf(pieces, left[1], left[0]) ? -1 : 1;
    }
    if (turn) {
      ring.push(x);
      ring.push(y);
    }
    way = (way + turn + 4) % 4;
  } while (x !== column || y !== row || way !== EAST);
  return ring.at.slice(0, ring.length);
}

// A ring as text, closed; outer rings against the clock, and others with it (RFC 7946, section 3.1.6).
function writtenRing(corners, { at, curved }, isOuter) {
  const points = [];
  for (let i = 0; i < corners.length; i += 2) {
    const [x, y, nextX, nextY] = [0, 1, 2, 3].map((part) => corners[(i + part) % corners.length]);
    points.push(at(x, y));
    if (!curved) continue;
    const [from, to] = x === nextX ? [y, nextY] : [x, nextX];
    const way = Math.sign(to - from);
    for (let cut = (way > 0 ? Math.floor(from / UNCUT) + 1 : Math.ceil(from / UNCUT) - 1) * UNCUT;
      way * cut < way * to; cut += way * UNCUT) points.push(x === nextX ? at(x, cut) : at(cut, y));
  }
  let doubled = 0;
  points.forEach(([x, y], i) => {
    const [nextX, nextY] = points[(i + 1) % points.length];
    doubled += (x - points[0][0]) * (nextY - points[0][1]) - (nextX - points[0][0]) * (y - points[0][1]);
  });
  if (doubled > 0 !== isOuter) points.reverse();
  return `[${[...points, points[0]].map(([x, y]) => `[${x}, ${y}]`).join(", ")}]`;
}

// How pixel coordinates become those of the file: { at(x, y), curved }. Refuses what this page cannot convert.
function placement(geo) {
  if (!geo) return { at: (x, y) => [x, y], curved: false }; // pixels, y downwards, as skystill predict writes them
  const place = placeFrom(geo);
  if (!place.to) refuse(TEXT.noLonLat("control points"));
  const [a, b, c, d, e, f] = place.to;
  const half = place.keys[1025] === 2 ? -0.5 : 0; // "pixel is point": the tie point is the centre of a pixel
  const plane = (x, y) => [a * (x + half) + b * (y + half) + c, d * (x + half) + e * (y + half) + f];
  if (!place.keys[1024]) return { at: plane, curved: false };
  const lonLat = toLonLat(place);
  if (!lonLat) refuse(TEXT.noLonLat(groundName(place)));
  const at = (x, y) => {
    const [longitude, latitude] = lonLat(...plane(x, y));
    if (!(Math.abs(longitude) <= 180 && Math.abs(latitude) <= 90)) refuse(TEXT.beyond);
    return [longitude, latitude].map((angle) => Math.round(angle * 1e9) / 1e9); // a tenth of a millimetre
  };
  return { at, curved: isUtm(codeOf(place.keys)) || b !== 0 || d !== 0 };
}
