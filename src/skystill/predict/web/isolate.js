"use strict";
// A service worker for servers that cannot send headers: it adds those that isolate the page from others, so that its
// threads may share memory. It keeps nothing, and leaves all other pages and files as they are.

const HEADERS = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const PAGES = ["./", "./index.html"].map((name) => new URL(name, location.href).href);

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  if (PAGES.includes(event.request.url.replace(/[?#].*$/s, ""))) event.respondWith(isolated(event.request));
});

async function isolated(request) {
  const found = await fetch(request);
  if (!found.ok) return found;
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}
