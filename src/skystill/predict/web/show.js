"use strict";
// What is shown of an image: view, facts, notes, table and list.

const hidden = new Set(); // labels that the legend has switched off

const tellUnder = (place) => {
  const { label, confidence } = (place && current?.labels?.at(place.row, place.column)) ?? {};
  const percent = confidence <= SURE ? Math.round((100 * confidence) / SURE) : null;
  const other = place && current?.other?.labels.at(place.row, place.column).label;
  const nameOf = (one) => CLASSES[one]?.name ?? TEXT.noClass;
  $("under").textContent = label === undefined ? TEXT.away
    : TEXT.under(nameOf(label), percent, place.row, place.column) +
      (other === undefined || other === null ? "" : TEXT.underOther(OTHER.name, nameOf(other)));
};

const view = new View($("map"), tellUnder, readShown);

// Look at an image that was labelled before: its file is read again.
async function lookAt(entry) {
  if (busy) return; // the image that is labelled is shown
  display(entry);
  for (const tile of entry.labels.tiles) {
    const pixels = await readShown(bounds(tile), view.base.step);
    if (!pixels || current !== entry) return;
    view.put(tile, pixels);
  }
}

function display(entry) {
  current = entry;
  $("result").hidden = !entry;
  $("drop").classList.toggle("small", Boolean(entry));
  if (!entry) return;
  const { picture, labels, name, note } = entry;
  if (view.labels !== labels) {
    view.show(labels);
    if (OTHER) chooseShown("own");
    if (OTHER) tellCompared(entry);
  }
  const crs = picture.geo ? crsName(placeFrom(picture.geo)) : "";
  $("facts").textContent = TEXT.total(`${picture.width} x ${picture.height} pixels`, name, crs);
  const notes = [note, ...picture.notes, ...placeNotes(picture.geo)].filter(Boolean);
  $("notes").replaceChildren(...notes.map((one) => element("li", one)));
  for (const id of ["save-tif", "save-png", "save-geojson", "save-csv", "compare"]) $(id).disabled = !entry.finished;
  fillTable(entry);
  listEntries();
}

function placeNotes(geo) {
  if (!geo) return [];
  const area = pixelArea(geo);
  if (!area) return [TEXT.noHectares(groundName(placeFrom(geo)))];
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
  view.colors[DIFFERENT] = 0xff1414e6; // red, as its bytes lie in memory
  view.recolor(CLASSES, hidden);
  $("classes").append(...CLASSES.map(({ name, rgb }, label) => {
    const row = document.createElement("tr");
    const box = element("input", "", { type: "checkbox", checked: true, id: `class-${label}` });
    box.addEventListener("change", () => {
      hidden[box.checked ? "delete" : "add"](label);
      view.recolor(CLASSES, hidden);
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

// Add the entries that are not listed yet, and tell the state of all that have another one than before.
function listEntries() {
  $("files").hidden = entries.length < 2;
  $("save-all").hidden = entries.filter((one) => one.finished).length < 2;
  for (const entry of entries) {
    const told = `${entry.state} ${entry === current}`;
    if (entry.told === told) continue;
    entry.told = told;
    entry.item ??= listItem(entry);
    const [button, state] = entry.item.children;
    button.disabled = !entry.finished;
    if (entry === current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    state.textContent = entry.state === "done" ? "" : ` ${entry.state}`;
  }
}

function listItem(entry) {
  const item = document.createElement("li");
  const button = element("button", entry.name, { type: "button" });
  button.addEventListener("click", () => lookAt(entry));
  item.append(button, element("span", ""));
  $("files").append(item);
  return item;
}
