"use strict";
const image = document.getElementById("image"), said = document.getElementById("said");
const form = document.getElementById("form"), result = document.getElementById("result");
let shown = null;

async function send(file) {
  said.textContent = `${file.name} is being predicted.`;
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
  } catch (error) {
    said.textContent = `${file.name}: ${error.message}`;
  }
}

image.addEventListener("change", () => image.files.length && send(image.files[0]));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});
