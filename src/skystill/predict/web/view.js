"use strict";
// The picture with its classes on top: zoom, pan, opacity, and what lies under the pointer. All of it is kept reduced,
// so that moving is quick for images of any size. Where a part is enlarged, its pixels are asked for once the view
// rests.

const BASE_PIXELS = 6.5e6; // of the reduced image
const BASE_SIDE = 8192; // a longer canvas is not possible everywhere
const DETAIL_PIXELS = 16e6; // largest part of an image that is read for the screen
const REST = 120; // milliseconds without a movement
const PAINTING = 8; // milliseconds of a frame in which classes are painted

// An area of the image and its classes, one pixel for each `step` x `step`.
class Layer {
  constructor(area, step) {
    Object.assign(this, { area, step });
    this.rows = Math.ceil((area.bottom - area.top) / step);
    this.columns = Math.ceil((area.right - area.left) / step);
    this.picture = new OffscreenCanvas(this.columns, this.rows).getContext("2d", { alpha: false });
    this.classes = new OffscreenCanvas(this.columns, this.rows).getContext("2d");
  }

  putPicture(area, rgba) {
    const image = new ImageData(rgba, Math.ceil((area.right - area.left) / this.step));
    this.picture.putImageData(image, (area.left - this.area.left) / this.step, (area.top - this.area.top) / this.step);
  }

  // Paint the part of a tile that is in here. Both begin at multiples of the step.
  putClasses({ top, bottom, left, right, labels }, colors) {
    const { area, step } = this;
    const [first, last] = [Math.max(top, area.top), Math.min(bottom, area.bottom)];
    const [begin, end] = [Math.max(left, area.left), Math.min(right, area.right)];
    if (!labels || first >= last || begin >= end) return;
    const [rows, columns] = [Math.ceil((last - first) / step), Math.ceil((end - begin) / step)];
    const image = new ImageData(columns, rows);
    const out = new Uint32Array(image.data.buffer);
    const middle = step >> 1;
    for (let row = 0, to = 0; row < rows; row++) {
      const from = (Math.min(first + row * step + middle, bottom - 1) - top) * (right - left) - left;
      for (let column = 0; column < columns; column++) {
        out[to++] = colors[labels[from + Math.min(begin + column * step + middle, right - 1)]];
      }
    }
    this.classes.putImageData(image, (begin - area.left) / step, (first - area.top) / step);
  }

  draw(context, scale, opacity) {
    const place = [this.area.left, this.area.top, this.columns * this.step, this.rows * this.step];
    context.imageSmoothingEnabled = this.step > 1 || scale < 1; // single pixels are squares
    context.globalAlpha = 1;
    context.drawImage(this.picture.canvas, ...place);
    context.globalAlpha = opacity;
    context.drawImage(this.classes.canvas, ...place);
    context.globalAlpha = 1;
  }
}

class View {
  // `canvas` is painted; `tell` is called with the row and the column under the pointer, or null; `ask` is called with
  // an area and a step, and gives its pixels, or null.
  constructor(canvas, tell, ask) {
    Object.assign(this, { canvas, tell, ask });
    this.context = canvas.getContext("2d", { alpha: false });
    this.opacity = 0.55;
    this.labels = this.painted = this.base = this.detail = null;
    this.colors = new Uint32Array(256); // of each label, as its bytes lie in memory; 0 is not shown
    this.stale = []; // layers and tiles whose classes are to be painted
    this.scale = 1; // canvas pixels per pixel of the picture
    this.left = this.top = 0; // of the canvas, in pixels of the picture
    this.pointers = new Map();
    new ResizeObserver(() => this.fitCanvas()).observe(canvas);
    this.listen();
  }

  // Show an image by its labels, which may be unfinished.
  show(labels) {
    const { width, height } = labels;
    this.labels = this.painted = labels;
    let step = 1;
    while ((width * height) / step ** 2 > BASE_PIXELS || Math.max(width, height) / step > BASE_SIDE) step *= 2;
    this.base = new Layer({ top: 0, left: 0, bottom: height, right: width }, Math.min(step, PHASE));
    this.detail = null;
    this.isBlank = true;
    this.recolor();
    this.fitCanvas(); // which may not have been seen before
  }

  // The classes that are shown have changed.
  recolor(classes = null, hidden = null) {
    classes?.forEach(({ rgb }, label) => {
      const shown = hidden.has(label) ? [0, 0, 0, 0] : [...rgb, 255];
      this.colors[label] = new Uint32Array(Uint8Array.from(shown).buffer)[0];
    });
    const layers = [this.base, this.detail].filter(Boolean);
    this.stale = layers.flatMap((layer) => this.painted.tiles.map((tile) => [layer, tile]));
    this.paintSoon();
  }

  // Paint other labels of the same image.
  paintOther(labels) {
    if (!this.labels || this.painted === labels) return;
    this.painted = labels;
    for (const layer of [this.base, this.detail]) layer?.classes.clearRect(0, 0, layer.columns, layer.rows);
    this.recolor();
  }

  // A tile was labelled or read. `picture` are its pixels, reduced by the step of the base.
  put(tile, picture) {
    if (picture) this.base.putPicture(tile, picture);
    this.isBlank = false;
    for (const layer of [this.base, this.detail]) layer?.putClasses(tile, this.colors);
    this.paintSoon();
  }

  // The whole image, reduced by a step that may be larger than that of the base. Tiles replace it.
  putOverview(rgba, step) {
    const { area, picture } = this.base;
    const layer = new Layer(area, step);
    layer.putPicture(area, rgba);
    const scale = step / this.base.step;
    picture.drawImage(layer.picture.canvas, 0, 0, layer.columns * scale, layer.rows * scale);
    this.paintSoon();
  }

  fitCanvas() {
    const { clientWidth, clientHeight } = this.canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    if (this.labels) this.fit();
  }

  fit() {
    const { width, height } = this.labels;
    this.scale = Math.min(this.canvas.width / width, this.canvas.height / height);
    this.left = (width - this.canvas.width / this.scale) / 2;
    this.top = (height - this.canvas.height / this.scale) / 2;
    this.paintSoon();
  }

  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    if (!this.labels) return;
    const least = Math.min(this.canvas.width / this.labels.width, this.canvas.height / this.labels.height, 1) / 2;
    const scale = Math.min(40, Math.max(least, this.scale * factor));
    this.left += x / this.scale - x / scale;
    this.top += y / this.scale - y / scale;
    this.scale = scale;
    this.paintSoon();
  }

  pan(x, y) {
    this.left -= x / this.scale;
    this.top -= y / this.scale;
    this.paintSoon();
  }

  paintSoon() {
    this.frame ??= requestAnimationFrame(() => { // of several wishes, one is painted
      this.frame = null;
      this.paint();
    });
  }

  paint() {
    const { context, canvas, scale } = this;
    const end = performance.now() + PAINTING;
    while (this.stale.length && performance.now() < end) {
      const [layer, tile] = this.stale.shift();
      layer.putClasses(tile, this.colors);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#262a30"; // around the picture
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (!this.labels) return;
    context.save();
    context.setTransform(scale, 0, 0, scale, -this.left * scale, -this.top * scale);
    context.beginPath();
    context.rect(0, 0, this.labels.width, this.labels.height);
    context.clip();
    for (const layer of [this.base, this.detail]) layer?.draw(context, scale, this.opacity);
    context.restore();
    if (this.stale.length) this.paintSoon();
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.refine(), REST);
  }

  // Ask for the pixels that the screen can show and the base does not have.
  async refine() {
    const wanted = this.wanted();
    if (!wanted || this.asking) return;
    const { labels } = this;
    this.asking = true;
    const pixels = await this.ask(wanted.area, wanted.step);
    this.asking = false;
    if (!pixels || this.labels !== labels) return;
    this.detail = new Layer(wanted.area, wanted.step);
    this.detail.putPicture(wanted.area, pixels);
    for (const tile of this.painted.tiles) this.detail.putClasses(tile, this.colors);
    this.paintSoon();
  }

  // Area and step of the pixels to ask for, or null if they are there, or are too many.
  wanted() {
    if (!this.base) return null;
    const step = Math.max(1, 2 ** Math.floor(Math.log2(1 / this.scale)));
    if (step >= this.base.step) return null;
    const [across, down] = [this.canvas.width / this.scale, this.canvas.height / this.scale];
    const { width, height } = this.labels;
    const around = (part) => ({
      top: Math.max(0, Math.floor((this.top - down * part) / step) * step),
      left: Math.max(0, Math.floor((this.left - across * part) / step) * step),
      bottom: Math.min(height, Math.ceil((this.top + down * (1 + part)) / step) * step),
      right: Math.min(width, Math.ceil((this.left + across * (1 + part)) / step) * step),
    });
    const seen = around(0);
    const has = this.detail?.area;
    const size = ({ top, bottom, left, right }) => Math.max(0, bottom - top) * Math.max(0, right - left);
    const isThere = has && this.detail.step === step && has.top <= seen.top && has.bottom >= seen.bottom
      && has.left <= seen.left && has.right >= seen.right;
    if (isThere || !size(seen)) return null;
    const area = [around(0.15), seen].find((one) => size(one) <= DETAIL_PIXELS);
    return area ? { area, step } : null;
  }

  inside(place, size) {
    const found = Math.floor(place);
    return found >= 0 && found < size ? found : -1;
  }

  // The part of the image that is seen.
  seen() {
    const { width, height } = this.labels;
    const [down, across] = [this.canvas.height / this.scale, this.canvas.width / this.scale];
    return { top: Math.max(0, Math.floor(this.top)), bottom: Math.min(height, Math.ceil(this.top + down)),
      left: Math.max(0, Math.floor(this.left)), right: Math.min(width, Math.ceil(this.left + across)) };
  }

  // Row and column of the picture below a place of the canvas, or null.
  at(x, y) {
    if (!this.labels) return null;
    const column = this.inside(this.left + x / this.scale, this.labels.width);
    const row = this.inside(this.top + y / this.scale, this.labels.height);
    return row < 0 || column < 0 ? null : { row, column };
  }

  place(event) {
    const ratio = this.canvas.width / this.canvas.clientWidth;
    return [event.offsetX * ratio, event.offsetY * ratio];
  }

  listen() {
    const { canvas, pointers } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(1.0015 ** -event.deltaY, ...this.place(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, this.place(event));
    });
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("pointerleave", () => this.tell(null));
    canvas.addEventListener("dblclick", (event) => this.zoom(2, ...this.place(event)));
    canvas.addEventListener("keydown", (event) => this.pressed(event));
  }

  moved(event) {
    const [x, y] = this.place(event);
    const before = this.pointers.get(event.pointerId);
    if (before) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) { // two fingers
        const distance = (from) => Math.hypot(from[0] - other[0], from[1] - other[1]) || 1;
        this.zoom(distance([x, y]) / distance(before), ...other);
      } else this.pan(x - before[0], y - before[1]);
      this.pointers.set(event.pointerId, [x, y]);
    }
    this.tell(this.at(x, y));
  }

  pressed(event) {
    const way = this.canvas.width / 10;
    const keys = {
      ArrowLeft: () => this.pan(way, 0), ArrowRight: () => this.pan(-way, 0), ArrowUp: () => this.pan(0, way),
      ArrowDown: () => this.pan(0, -way), "+": () => this.zoom(1.5), "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5), 0: () => this.fit(),
    };
    if (!this.labels || !keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
    this.tell(this.at(this.canvas.width / 2, this.canvas.height / 2)); // what lies in the middle
  }
}
