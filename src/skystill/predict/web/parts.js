"use strict";
// The parts of the page, such as the model: packed into its own text, or files beside it, each with its SHA-256.

const FILES = ABOUT.files; // name and integrity of the file of each part; null where the page is one file
const PART = 2 ** 20; // letters of base64, four of which are three bytes

// A part as a blob, which is passed on without a copy.
async function partOf(id) {
  if (FILES) return fetchPart(FILES[id]);
  if ($(id).type === "text/plain") return new Blob([$(id).textContent]);
  return unpack(await fromText(id));
}

async function fetchPart({ file, integrity }) {
  const found = await fetch(file, { integrity }).catch(() => refuse(TEXT.noPart(file)));
  const blob = await found.blob();
  return file.endsWith(".bin") ? unpack(blob) : blob;
}

// What the text of an element holds in base64. The text is dropped.
async function fromText(id) {
  const text = $(id).textContent;
  $(id).textContent = "";
  const bytes = [];
  for (let at = 0; at < text.length; at += PART) {
    bytes.push(fromBase64(text.slice(at, at + PART)));
    await pause();
  }
  return new Blob(bytes);
}

function fromBase64(text) {
  return Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

const unpack = (blob) => new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).blob();

// The image that is built in.
const exampleImage = async () => (FILES ? fetchPart(FILES["example-image"])
  : new Blob([fromBase64($("example-image").textContent)]));

// Let the page go on. A timer would wait for a second where the page is not seen.
const pause = () => new Promise((resolve) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = resolve;
  port2.postMessage(0);
});

// Threads share memory, which browsers allow only to a page that is isolated from others by two headers. Where its
// server does not send them, a service worker adds them. Returns true if the page is loaded again for this, which is
// tried once.
async function isolate() {
  if (!FILES || crossOriginIsolated || !isSecureContext || !navigator.serviceWorker) return false;
  try {
    if (sessionStorage.getItem(ISOLATE)) return false;
    sessionStorage.setItem(ISOLATE, "tried");
    await navigator.serviceWorker.register(ISOLATE);
    await navigator.serviceWorker.ready;
  } catch {
    return false; // a browser that forbids it: the page works without threads
  }
  location.reload();
  return true;
}

const ISOLATE = "isolate.js";
