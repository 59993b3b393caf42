"use strict";
// The labels of an image, tile by tile as the workers give them, and their confidence. One byte each per pixel.

const NODATA = 255;
const SURE = 250; // a confidence of 1, as in the rasters of skystill predict --confidence

class Labels {
  constructor(height, width, grid) {
    Object.assign(this, { height, width, tiles: cut(height, width, grid) });
    const first = this.tiles[0];
    this.rows = first.bottom - first.top; // of all tiles but the last ones
    this.columns = first.right - first.left;
    this.across = Math.ceil(width / this.columns);
  }

  get bytes() {
    return this.tiles.reduce((sum, one) => sum + (one.labels?.length ?? 0) + (one.confidence?.length ?? 0), 0);
  }

  tileAt(row, column) {
    return this.tiles[Math.floor(row / this.rows) * this.across + Math.floor(column / this.columns)];
  }

  // Label and confidence of a pixel; both undefined where its tile is not labelled yet.
  at(row, column) {
    const { top, left, right, labels, confidence } = this.tileAt(row, column);
    const place = (row - top) * (right - left) + column - left;
    return { label: labels?.[place], confidence: confidence?.[place] };
  }

  // The labels of a part of a row, NODATA where there are none.
  copyRow(row, left, right, to, start) {
    for (let column = left; column < right;) {
      const tile = this.tileAt(row, column);
      const end = Math.min(right, tile.right);
      const from = (row - tile.top) * (tile.right - tile.left) - tile.left;
      if (tile.labels) to.set(tile.labels.subarray(from + column, from + end), start + column - left);
      else to.fill(NODATA, start + column - left, start + end - left);
      column = end;
    }
  }
}
