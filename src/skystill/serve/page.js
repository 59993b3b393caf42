"use strict";
const input = document.getElementById("input"), said = document.getElementById("status");
const state = document.documentElement.dataset;
const form = document.getElementById("form"), result = document.getElementById("result");
let shown = null;

async function send(file) {
  said.textContent = `${file.name} is being predicted.`;
  state.state = "busy";
  result.removeAttribute("src");
  result.alt = "";
  if (shown) URL.revokeObjectURL(shown);
  try {
    const kind = form.value;
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    const answer = await fetch(`/predict?f=${kind}`, { method: "POST", body: file, headers });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    const notes = answer.headers.get("SkyStill-Note") || "";
    shown = URL.createObjectURL(await answer.blob());
    if (kind === "png") {
      result.src = shown;
      result.alt = `classes of ${file.name}`;
    } else {
      const save = document.createElement("a");
      save.href = shown;
      save.download = `classes.${kind}`;
      save.click();
    }
    said.textContent = `${file.name} is done. ${notes}`;
    state.state = "done";
  } catch (error) {
    said.textContent = `${file.name}: ${error.message}`;
    state.state = "refused";
  }
}

input.addEventListener("change", () => input.files.length && send(input.files[0]));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});
state.state = "ready";
