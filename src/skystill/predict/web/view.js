"use strict";
// The picture with its classes on top: zoom, pan, opacity, and what lies under the pointer.

class View {
  // `canvas` is painted; `tell` is called with the row and the column under the pointer, or null.
  constructor(canvas, tell) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.tell = tell;
    this.opacity = 0.55;
    this.picture = null;
    this.colors = new Uint8Array(4 * 256); // of each label; the fourth byte says whether it is shown
    this.scale = 1; // canvas pixels per pixel of the picture
    this.left = this.top = 0; // of the canvas, in pixels of the picture
    this.pointers = new Map();
    new ResizeObserver(() => this.fitCanvas()).observe(canvas);
    this.listen();
  }

  show(picture, classes, hidden) {
    const isOther = !this.picture || this.picture.width !== picture.width || this.picture.height !== picture.height;
    this.picture = picture;
    classes.forEach(({ rgb }, label) => this.colors.set([...rgb, hidden.has(label) ? 0 : 1], 4 * label));
    if (isOther) this.fit();
    this.paintSoon();
  }

  fitCanvas() {
    const { clientWidth, clientHeight } = this.canvas;
    const ratio = Math.min(devicePixelRatio, 2);
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    if (this.picture) this.fit();
  }

  fit() {
    const { width, height } = this.picture;
    this.scale = Math.min(this.canvas.width / width, this.canvas.height / height);
    this.left = (width - this.canvas.width / this.scale) / 2;
    this.top = (height - this.canvas.height / this.scale) / 2;
    this.paintSoon();
  }

  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    if (!this.picture) return;
    const least = Math.min(this.canvas.width / this.picture.width, this.canvas.height / this.picture.height, 1) / 2;
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
    const { width, height } = this.canvas;
    const image = this.context.createImageData(width, height);
    const out = new Uint32Array(image.data.buffer).fill(0xff302a26); // around the picture
    if (this.picture) this.fill(out, width, height);
    this.context.putImageData(image, 0, 0);
  }

  // One pixel of the picture for each of the canvas; where the picture is reduced, the mean of two on a diagonal.
  fill(out, width, height) {
    const { planes, labels, shown, width: pictureWidth, height: pictureHeight } = this.picture;
    const size = pictureWidth * pictureHeight;
    const step = 1 / this.scale;
    const columns = Int32Array.from({ length: width },
      (_, x) => this.inside(this.left + (x + 0.5) * step, pictureWidth));
    const apart = Math.floor(step / 2);
    const [red, green, blue] = shown.bands.map((band) => band * size);
    const [lowRed, lowGreen, lowBlue] = shown.low;
    const [gainRed, gainGreen, gainBlue] = shown.gain.map((gain) => gain / 2);
    const { colors, opacity } = this;
    const pixel = new Uint8ClampedArray(out.buffer);
    for (let y = 0; y < height; y++) {
      const row = this.inside(this.top + (y + 0.5) * step, pictureHeight);
      if (row < 0) continue;
      const down = row + apart < pictureHeight ? apart * pictureWidth : 0;
      for (let x = 0, to = 4 * y * width; x < width; x++, to += 4) {
        const column = columns[x];
        if (column < 0) continue;
        const at = row * pictureWidth + column;
        const other = column + apart < pictureWidth ? at + down + apart : at;
        const label = 4 * labels[at];
        const part = colors[label + 3] * opacity;
        const rest = 1 - part;
        pixel[to] = (planes[red + at] + planes[red + other] - 2 * lowRed) * gainRed * rest + colors[label] * part;
        pixel[to + 1] = (planes[green + at] + planes[green + other] - 2 * lowGreen) * gainGreen * rest
          + colors[label + 1] * part;
        pixel[to + 2] = (planes[blue + at] + planes[blue + other] - 2 * lowBlue) * gainBlue * rest
          + colors[label + 2] * part;
      }
    }
  }

  inside(place, size) {
    const found = Math.floor(place);
    return found >= 0 && found < size ? found : -1;
  }

  // Row and column of the picture below a place of the canvas, or null.
  at(x, y) {
    if (!this.picture) return null;
    const column = this.inside(this.left + x / this.scale, this.picture.width);
    const row = this.inside(this.top + y / this.scale, this.picture.height);
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
    if (!this.picture || !keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
    this.tell(this.at(this.canvas.width / 2, this.canvas.height / 2)); // what lies in the middle
  }
}
