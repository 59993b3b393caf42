"use strict";
// A second model, which is run on the part of the image that is shown: where its classes differ, and both times.

const OTHER = ABOUT.other; // null without one
const DIFFERENT = 254; // a label of the map of differences
let otherPool = null;

async function openOther() {
  const { url, opening } = pool;
  otherPool ??= new Pool(url, { ...opening, model: await partOf("other-model"), info: OTHER.input }, 1);
  await otherPool.open();
  return otherPool;
}

async function compare() {
  const entry = current;
  if (busy || !entry?.finished) return;
  busy = true;
  $("stop").hidden = false;
  setState("comparing", TEXT.comparing(OTHER.name));
  try {
    if (!await runOther(entry)) throw new Stopped();
    chooseShown("difference");
    setState("compared", TEXT.compared(OTHER.name));
  } catch (error) {
    if (error instanceof Stopped) setState("stopped", TEXT.comparingStopped(OTHER.name));
    else setState("refused", TEXT.comparingFailed(OTHER.name, error.message));
  }
  tellCompared(entry);
  busy = false;
  hideProgress();
  workOff();
}

// Label the tiles that are shown and not labelled yet. Returns false if it was stopped.
async function runOther(entry) {
  const { height, width } = entry.labels;
  if (!await openInReader(entry)) return false;
  running = await openOther();
  entry.other ??= { labels: new Labels(height, width, OTHER.grid), difference: new Labels(height, width, OTHER.grid),
    cost: { ms: 0, pixels: 0 }, known: 0, equal: 0 };
  const { labels } = entry.other;
  const seen = view.seen();
  const tiles = labels.tiles.filter((tile) => !tile.labels && tile.top < seen.bottom && tile.bottom > seen.top
    && tile.left < seen.right && tile.right > seen.left);
  const began = performance.now();
  let done = 0;
  chooseShown("other");
  showProgress(0, began);
  return running.run(tiles, (tile) => readTile(entry, tile), (tile, _, found) => {
    keepOther(entry, tile, found);
    showProgress((done += 1) / tiles.length, began);
    if (view.painted === labels) view.put(tile, null);
  });
}

// The labels of a tile, by the classes of the first model, and where they are others.
function keepOther({ labels, other }, tile, found) {
  const [rows, columns] = [tile.bottom - tile.top, tile.right - tile.left];
  const own = new Uint8Array(rows * columns);
  for (let row = 0; row < rows; row++) labels.copyRow(tile.top + row, tile.left, tile.right, own, row * columns);
  tile.labels = (found.labels ?? own).map((label) => (label === NODATA ? NODATA : OTHER.places[label]));
  tile.confidence = found.confidence;
  const differs = tile.labels.map((label, i) => (label === own[i] ? NODATA : DIFFERENT));
  other.difference.tileAt(tile.top, tile.left).labels = differs;
  for (let i = 0; i < own.length; i++) {
    if (own[i] === NODATA) continue;
    other.known++;
    if (differs[i] === NODATA) other.equal++;
  }
  if (found.labels) addCost(other.cost, found.ms, own.length);
}

function tellCompared({ cost, other }) {
  const [own, second] = [cost, other?.cost ?? { pixels: 0 }].map(({ ms, pixels }) => (ms / pixels) * 1e6);
  const shown = other?.known && second;
  $("compared").textContent = shown ? TEXT.comparison([ABOUT.name, OTHER.name], [own, second], other) : "";
  for (const input of document.getElementsByName("shown")) input.disabled = !shown;
}

// Paint the classes of the first model, of the second, or where they differ.
function chooseShown(what) {
  for (const input of document.getElementsByName("shown")) input.checked = input.value === what;
  const { labels, other } = current;
  view.paintOther({ own: labels, other: other?.labels, difference: other?.difference }[what]);
}

function makeComparing() {
  $("comparing").hidden = !OTHER;
  if (!OTHER) return;
  $("compare").textContent = TEXT.compare(OTHER.name);
  $("shown-own").textContent = ABOUT.name;
  $("shown-other").textContent = OTHER.name;
  $("compare").addEventListener("click", compare);
  for (const input of document.getElementsByName("shown")) {
    input.addEventListener("change", () => chooseShown(input.value));
  }
}
