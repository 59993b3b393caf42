"use strict";
// The page: files in, class maps out. Reading and the network are in workers, so that this never waits.

const $ = (id) => document.getElementById(id);
const ABOUT = JSON.parse($("about-model").textContent);
const CLASSES = ABOUT.classes;
const LIMIT = 1e9; // bytes of one image when decoded: browsers allow arrays of about 2 GB
const entries = []; // of the images, in the order in which they were given
const hidden = new Set();
let current = null; // the entry that is shown
let busy = true; // until the model is open
let pool;
let reader;
let readerUrl;

const setState = (state, text) => {
  document.documentElement.dataset.state = state;
  $("status").textContent = text;
};

const tellUnder = (place) => {
  const label = place && current?.labels ? current.labels[place.row * current.picture.width + place.column] : null;
  $("under").textContent = label === null ? TEXT.away
    : TEXT.under(CLASSES[label]?.name ?? TEXT.noClass, place.row, place.column);
};

const view = new View($("map"), tellUnder);

async function begin() {
  setState("opening", TEXT.opening);
  try {
    checkBrowser();
    const [wasm, model, ortCode, geotiffCode] = await Promise.all(["wasm", "model", "ort", "geotiff"].map(unpack));
    const ownCode = (id) => $(id).textContent;
    const networkUrl = scriptUrl(new TextDecoder().decode(ortCode), ownCode("network-code"));
    readerUrl = scriptUrl(new TextDecoder().decode(geotiffCode), ownCode("reader-code"));
    reader = new Asked(readerUrl);
    pool = new Pool(networkUrl, { wasm, model, info: ABOUT.input });
    await pool.open();
    for (const id of ["choose", "example"]) $(id).disabled = false;
    setState("ready", TEXT.ready);
    busy = false;
    workOff();
  } catch (error) {
    setState("failed", error instanceof Refused ? error.message : TEXT.modelFailed(error.message));
  }
}

function checkBrowser() {
  const simd = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0,
    253, 15, 253, 98, 11);
  if (typeof DecompressionStream === "undefined") refuse(TEXT.noUnpack);
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(simd)) refuse(TEXT.noSimd);
}

function fromBase64({ textContent }) {
  const text = textContent.trim();
  return Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

// The bytes of a packed part of this page, whose text is then dropped.
async function unpack(id) {
  const bytes = fromBase64($(id));
  $(id).textContent = "";
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// ---- images, one after the other

function add(files, note = "") {
  for (const file of files) entries.push({ file, state: TEXT.waiting, note });
  listEntries();
  workOff();
}

async function workOff() {
  if (busy) return;
  busy = true;
  $("stop").hidden = false;
  for (let entry; (entry = entries.find((one) => one.state === TEXT.waiting));) await label(entry);
  busy = false;
  $("stop").hidden = true;
  $("progress").hidden = true;
  $("left").textContent = "";
}

async function label(entry) {
  const name = entry.file.name;
  const began = performance.now();
  entry.state = "";
  try {
    setState("reading", TEXT.reading(name));
    entry.picture = await read(entry.file);
    if (!entry.picture) throw new Stopped();
    const { width, height } = entry.picture;
    entry.labels = new Uint8Array(width * height).fill(NODATA);
    const keep = keeper(entry);
    display(entry);
    setState("running", TEXT.running(name));
    const tiles = cut(height, width, ABOUT.grid);
    if (!await pool.run(tiles, (tile) => cutOut(entry.picture, tile), keep)) throw new Stopped();
    finish(entry);
    setState("done", TEXT.done(name, ((performance.now() - began) / 1000).toFixed(1)));
  } catch (error) {
    giveUp(entry, error);
  }
  listEntries();
}

class Stopped extends Error {}

function giveUp(entry, error) {
  const { name } = entry.file;
  entry.picture = entry.labels = null;
  if (error instanceof Stopped) {
    for (const one of entries) if (one.state === TEXT.waiting) one.state = "stopped";
    entry.state = "stopped";
    setState("stopped", TEXT.stopped(name));
  } else {
    entry.state = error instanceof Refused ? error.message : TEXT.tileFailed(error.message);
    setState("refused", TEXT.refused(name, entry.state));
  }
  if (current === entry) display(entries.findLast((one) => one.finished) ?? null);
}

async function read(file) {
  const { picture, why, stopped, failed } = await reader.ask({ file, spec: ABOUT.spec, limit: LIMIT });
  if (stopped) return null;
  if (why || failed) refuse(why ?? failed);
  picture.shown = shownBands(picture);
  return picture;
}

// The bands that are painted as red, green and blue, and how their values become bytes.
function shownBands({ planes, width, height, valid }) {
  const bands = ABOUT.spec.shown;
  if (ABOUT.spec.isColors) return { bands, low: [0, 0, 0], gain: [1, 1, 1] };
  const size = width * height;
  const step = Math.max(1, Math.floor(size / 10000));
  const ends = bands.map((band) => {
    const values = [];
    for (let i = 0; i < size; i += step) if (!valid || valid[i]) values.push(planes[band * size + i]);
    values.sort((x, y) => x - y);
    return [values[Math.floor(values.length * 0.02)] ?? 0, values[Math.floor(values.length * 0.98)] ?? 1];
  });
  return { bands, low: ends.map(([low]) => low), gain: ends.map(([low, high]) => 255 / (high - low || 1)) };
}

// The message of a tile for a worker, or null if it has no pixel with data.
function cutOut({ planes, valid, width, height }, tile) {
  const [rows, columns] = [tile.readBottom - tile.readTop, tile.readRight - tile.readLeft];
  const start = (row) => (tile.readTop + row) * width + tile.readLeft;
  let seen = !valid;
  for (let row = 0; row < rows && !seen; row++) seen = valid.subarray(start(row), start(row) + columns).includes(1);
  if (!seen) return null;
  const bands = planes.length / (width * height);
  const part = new planes.constructor(bands * rows * columns);
  for (let band = 0; band < bands; band++) {
    for (let row = 0; row < rows; row++) {
      const from = band * width * height + start(row);
      part.set(planes.subarray(from, from + columns), (band * rows + row) * columns);
    }
  }
  const core = { top: tile.top - tile.readTop, bottom: tile.bottom - tile.readTop,
    left: tile.left - tile.readLeft, right: tile.right - tile.readLeft };
  return { planes: part, height: rows, width: columns, core };
}

// Takes the labels of each tile: into the class map, the table of areas, and the progress bar.
function keeper(entry) {
  const { width, height, valid, geo } = entry.picture;
  const area = pixelArea(geo);
  const counts = Array(256).fill(0);
  const areas = area ? Array(256).fill(0) : null;
  const began = performance.now();
  let done = 0;
  Object.assign(entry, { counts, areas });
  $("progress").hidden = false;
  $("progress").value = 0;
  $("left").textContent = "";
  return (tile, labels) => {
    const columns = tile.right - tile.left;
    const across = area && !area.byRow
      ? Float64Array.from({ length: columns }, (_, i) => area.at(tile.top, tile.left + i)) : null;
    for (let row = tile.top; row < tile.bottom; row++) {
      const squareMetres = area?.byRow ? area.at(row) : 0;
      for (let column = tile.left; column < tile.right; column++) {
        const at = row * width + column;
        const known = labels && (!valid || valid[at]);
        const one = known ? labels[(row - tile.top) * columns + column - tile.left] : NODATA;
        entry.labels[at] = one;
        counts[one]++;
        if (areas) areas[one] += across ? across[column - tile.left] : squareMetres;
      }
    }
    done += columns * (tile.bottom - tile.top);
    const part = done / (width * height);
    $("progress").value = part;
    $("left").textContent = part < 1 ? TEXT.left(((performance.now() - began) / 1000 / part) * (1 - part)) : "";
    if (current === entry) {
      view.paintSoon();
      fillTable(entry);
    }
  };
}

function finish(entry) {
  entry.finished = true;
  entry.state = "done";
  if (current === entry) display(entry);
  let bytes = 0; // pictures of earlier images are read again when they are looked at
  for (const one of [...entries].reverse()) {
    bytes += one.picture?.planes.byteLength ?? 0;
    if (bytes > LIMIT / 2 && one !== current) one.picture = null;
  }
}

async function lookAt(entry) {
  if (busy) return; // the image that is labelled is shown
  busy = true;
  try {
    entry.picture ??= await read(entry.file);
    display(entry);
  } catch (error) {
    setState("refused", TEXT.refused(entry.file.name, error.message));
  }
  busy = false;
  workOff();
}

// ---- what is shown

function display(entry) {
  current = entry;
  $("result").hidden = !entry;
  $("drop").classList.toggle("small", Boolean(entry));
  if (!entry) return;
  const { picture, labels, file, note } = entry;
  const crs = picture.geo ? crsName(placeFrom(picture.geo)) : "";
  $("facts").textContent = TEXT.total(`${picture.width} x ${picture.height} pixels`, file.name, crs);
  const notes = [note, ...picture.notes, ...placeNotes(picture.geo, crs)].filter(Boolean);
  $("notes").replaceChildren(...notes.map((one) => element("li", one)));
  for (const id of ["save-tif", "save-png", "save-csv"]) $(id).disabled = !entry.finished;
  view.show({ ...picture, labels }, CLASSES, hidden);
  fillTable(entry);
  listEntries();
}

function placeNotes(geo, crs) {
  if (!geo) return [];
  const area = pixelArea(geo);
  if (!area) return [TEXT.noHectares(crs || "none of them")];
  const own = Math.sqrt(area.at(0, 0));
  const trained = ABOUT.spec.resolution;
  const differs = trained && !(own / trained > 0.5 && own / trained < 2);
  return differs ? [TEXT.resolution(Number(own.toPrecision(3)), trained)] : [];
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  return Object.assign(made, attributes);
}

function makeTable() {
  $("classes").append(...CLASSES.map(({ name, rgb }, label) => {
    const row = document.createElement("tr");
    const box = element("input", "", { type: "checkbox", checked: true, id: `class-${label}` });
    box.addEventListener("change", () => {
      hidden[box.checked ? "delete" : "add"](label);
      if (current) view.show(view.picture, CLASSES, hidden);
    });
    const swatch = element("span", "", { className: "swatch" });
    swatch.style.background = `rgb(${rgb})`;
    const first = document.createElement("th");
    first.scope = "row";
    const text = element("label", name, { htmlFor: box.id });
    text.prepend(swatch);
    first.append(box, text);
    row.append(first, element("td", ""), element("td", ""), element("td", ""));
    return row;
  }));
}

function fillTable({ counts, areas }) {
  const total = Math.max(1, counts.slice(0, CLASSES.length).reduce((sum, one) => sum + one, 0));
  $("table").classList.toggle("placed", Boolean(areas));
  CLASSES.forEach((_, label) => {
    const cells = $("classes").rows[label].cells;
    cells[1].textContent = counts[label].toLocaleString("en");
    cells[2].textContent = `${((100 * counts[label]) / total).toFixed(1)} %`;
    cells[3].textContent = areas ? (areas[label] / 1e4).toFixed(2) : "";
  });
}

function listEntries() {
  $("files").hidden = entries.length < 2;
  $("files").replaceChildren(...entries.map((entry) => {
    const item = document.createElement("li");
    const button = element("button", entry.file.name, { type: "button", disabled: !entry.finished });
    if (entry === current) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => lookAt(entry));
    item.append(button, element("span", entry.state === "done" ? "" : ` ${entry.state}`));
    return item;
  }));
}

// ---- saving

async function save(ending, make) {
  const { picture, labels, counts, areas, file } = current;
  const blob = await make({ ...picture, labels, counts, areas }, CLASSES);
  const name = file.name.replace(/\.[^.]*$/, "") + ending;
  const link = element("a", "", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  $("status").textContent = TEXT.saved(name);
}

function listen() {
  $("choose").addEventListener("click", () => $("input").click());
  $("input").addEventListener("change", () => {
    add([...$("input").files]);
    $("input").value = "";
  });
  $("example").hidden = !ABOUT.spec.isColors;
  $("example").addEventListener("click", () => add(
    [new File([fromBase64($("example-image"))], "example.jpg")], TEXT.example));
  $("stop").addEventListener("click", () => {
    pool.stop();
    reader.end();
    reader = new Asked(readerUrl);
  });
  $("opacity").addEventListener("input", () => {
    view.opacity = $("opacity").value / 100;
    view.paintSoon();
  });
  $("nearer").addEventListener("click", () => view.zoom(1.5));
  $("farther").addEventListener("click", () => view.zoom(1 / 1.5));
  $("licences").addEventListener("toggle", async () => {
    $("licences-text").textContent ||= new TextDecoder().decode(await unpack("licences-packed"));
  }, { once: true });
  $("whole").addEventListener("click", () => view.picture && view.fit());
  $("save-tif").addEventListener("click", () => save("-classes.tif", toGeotiff));
  $("save-png").addEventListener("click", () => save("-classes.png", toPng));
  $("save-csv").addEventListener("click", () => save("-areas.csv", async (...all) => toCsv(...all)));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
}

makeTable();
listen();
begin();
