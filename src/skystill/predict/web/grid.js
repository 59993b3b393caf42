"use strict";
// How a raster is cut into tiles: the same as skystill.tiling.Grid, without blending. tests/web compares both.

const PHASE = 64;

const whole = (size) => Math.ceil(size / PHASE) * PHASE;

// Cores of equal size along one axis, as large as the tile allows: [start, end] of each.
function cores(size, tile, margin) {
  const largest = Math.max(PHASE, Math.floor((tile - 2 * margin) / PHASE) * PHASE);
  const equal = whole(Math.ceil(size / Math.ceil(size / largest)));
  const step = Math.min(largest, Math.max(equal, whole(2 * margin)));
  const found = [];
  for (let start = 0; start < size; start += step) found.push([start, Math.min(start + step, size)]);
  return found;
}

// All tiles, row by row: the core that is kept, and what is read around it.
function cut(height, width, grid) {
  const columns = cores(width, grid.columns, grid.margin);
  return cores(height, grid.rows, grid.margin).flatMap(([top, bottom]) => columns.map(([left, right]) => ({
    top, bottom, left, right,
    readTop: Math.max(0, top - grid.margin), readBottom: Math.min(height, bottom + grid.margin),
    readLeft: Math.max(0, left - grid.margin), readRight: Math.min(width, right + grid.margin),
  })));
}
