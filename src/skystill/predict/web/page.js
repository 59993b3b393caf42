"use strict";
// The page: files in, class maps out. Reading and the network are in workers, so that this never waits.

async function begin() {
  setState("opening", TEXT.opening);
  try {
    checkBrowser();
    if (await isolate()) return;
    const names = ["wasm", "model", "ort", "network-code", "geotiff", "reader-code"];
    const [wasm, model, ...scripts] = await Promise.all(names.map(partOf));
    const networkUrl = scriptUrl(...scripts.slice(0, 2));
    readerUrl = scriptUrl(...scripts.slice(2));
    reader = new Asked(readerUrl);
    pool = new Pool(networkUrl, { wasm, model, info: ABOUT.input });
    await pool.open();
    $("runs").textContent = TEXT.runs(pool.most, (await pool.workers[0].ready).threads);
    for (const id of ["choose", "choose-folder", "example"]) $(id).disabled = false;
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

// ---- saving

function save(ending, make) {
  const { picture, labels, counts, areas, name } = current;
  const saved = name.replace(/\.[^./]*$/, "").replaceAll("/", "-") + ending;
  const told = ending.endsWith("json") && !picture.geo ? TEXT.inPixels : "";
  return saveAs(saved, () => make({ geo: picture.geo, labels, counts, areas }, CLASSES), told);
}

// Make a file, and let the browser save it.
async function saveAs(name, make, told = "") {
  $("status").textContent = TEXT.saving(name);
  try {
    const link = element("a", "", { href: URL.createObjectURL(await make()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    $("status").textContent = TEXT.saved(name) + told;
  } catch (error) {
    setState("refused", TEXT.notSaved(name, error.message));
  }
}

// Polygons are made in a worker, which is given the labels tile by tile.
async function toGeojson({ labels, geo }, classes) {
  const worker = new Asked(scriptUrl(await partOf("polygons-code")));
  const ask = async (message) => {
    const answer = await worker.ask(message);
    if (answer.why || answer.failed) refuse(answer.why ?? answer.failed);
    return answer;
  };
  try {
    await ask({ width: labels.width, height: labels.height });
    for (const tile of labels.tiles) await ask({ tile: bounds(tile), labels: tile.labels });
    return (await ask({ geo, classes, rows: labels.rows })).blob;
  } finally {
    worker.end();
  }
}

function tellLimits() {
  const bytes = (ABOUT.spec.bands.length + 2) * (ABOUT.spec.dtype === "uint8" ? 1 : 4);
  const megapixels = [LIMITS.results, LIMITS.decoded / bytes].map((one) => Math.floor(one / 1e6));
  $("limits").textContent = TEXT.limits(...megapixels);
}

function listen() {
  $("choose").addEventListener("click", () => $("input").click());
  $("input").addEventListener("change", () => {
    add([...$("input").files]);
    $("input").value = "";
  });
  $("choose-folder").hidden = !("webkitdirectory" in $("folder"));
  $("choose-folder").addEventListener("click", () => $("folder").click());
  $("folder").addEventListener("change", () => {
    const chosen = [...$("folder").files];
    const folder = chosen[0]?.webkitRelativePath.split("/")[0] || null; // some browsers let only files be chosen
    const files = chosen.map((file) => ({ path: file.webkitRelativePath || file.name, open: () => file }));
    addFrom([{ folder, files }]);
    $("folder").value = "";
  });
  $("example").hidden = !ABOUT.spec.isColors;
  $("example").addEventListener("click", async () => add(
    [new File([await exampleImage()], "example.jpg")], TEXT.example));
  $("stop").addEventListener("click", () => {
    running.stop();
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
    $("licences-text").textContent ||= await (await partOf("licences-packed")).text();
  }, { once: true });
  $("whole").addEventListener("click", () => view.labels && view.fit());
  $("save-tif").addEventListener("click", () => save("-classes.tif", toGeotiff));
  $("save-png").addEventListener("click", () => save("-classes.png", toPng));
  $("save-geojson").addEventListener("click", () => save("-classes.geojson", toGeojson));
  $("save-all").addEventListener("click", saveAll);
  $("save-csv").addEventListener("click", () => save("-areas.csv", async (...all) => toCsv(...all)));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    addFrom(listDropped(event.dataTransfer.items));
  });
}

makeTable();
makeComparing();
tellLimits();
listen();
begin();
