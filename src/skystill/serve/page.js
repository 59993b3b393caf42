"use strict";
const input = document.getElementById("input"), said = document.getElementById("status");
const state = document.documentElement.dataset;
const form = document.getElementById("form"), result = document.getElementById("result");
let shown = null, last = null, sending = new AbortController();

// Not every answer is the service's own: a proxy refuses in HTML.
async function reason(answer) {
  try {
    return (await answer.json()).detail || answer.statusText;
  } catch {
    return `the answer was ${answer.status} ${answer.statusText}`.trim() + ".";
  }
}

function show(kind, file, blob) {
  shown = URL.createObjectURL(blob);
  if (kind === "png") {
    result.src = shown;
    result.alt = `classes of ${file.name}`;
    return;
  }
  const save = document.createElement("a");
  save.href = shown;
  save.download = `classes.${kind}`;
  save.click();
}

async function send(file) {
  sending.abort(); // its answer would come over that of this one
  sending = new AbortController();
  const { signal } = sending, kind = form.value;
  last = file;
  said.textContent = `${file.name} is being predicted.`;
  state.state = "busy";
  result.removeAttribute("src");
  result.alt = "";
  if (shown) URL.revokeObjectURL(shown);
  try {
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    const answer = await fetch(`/predict?f=${kind}`, { method: "POST", body: file, headers, signal });
    if (!answer.ok) throw new Error(await reason(answer));
    const blob = await answer.blob();
    if (signal.aborted) return;
    show(kind, file, blob);
    said.textContent = `${file.name} is done. ${answer.headers.get("SkyStill-Note") || ""}`;
    state.state = "done";
  } catch (error) {
    if (signal.aborted) return;
    said.textContent = `${file.name}: ${error.message}`;
    state.state = "refused";
  }
}

input.addEventListener("click", () => { input.value = ""; }); // the same file may be chosen again
input.addEventListener("change", () => input.files.length && send(input.files[0]));
form.addEventListener("change", () => last && send(last));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});
state.state = "ready";
