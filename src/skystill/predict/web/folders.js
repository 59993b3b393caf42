"use strict";
// Folders that are dropped or chosen: which of their files are images. The rules are those of skystill.raster.listing;
// tests/web compares both.

const IMAGE_NAME = /.\.(jpe?g|png|webp|tiff?)$/i; // of the kinds that this page reads
const MASK_FOLDERS = new Set(["masks", "mask", "labels", "label", "annotations", "gt"]);
const MASK_NAME = /[_\-. ](masks?|labels?|gt)$/i;
const MADE_BY_PROGRAMS = new Set(["__macosx", "@eadir"]);

const isHidden = (name) => name.startsWith(".") || MADE_BY_PROGRAMS.has(name.toLowerCase());

// What a file is by its path, which begins with the folder that was given: "image", "mask", "hidden" or "other".
function roleOf(path) {
  const below = path.split("/").slice(1);
  if (below.some(isHidden)) return "hidden";
  const name = below.pop();
  if (!IMAGE_NAME.test(name)) return "other";
  const isMask = below.some((folder) => MASK_FOLDERS.has(folder.toLowerCase()));
  return isMask || MASK_NAME.test(name.replace(/\.[^.]*$/, "")) ? "mask" : "image";
}

// Folders in order, and the files in each.
function byPath({ path: one }, { path: other }) {
  const [a, b] = [one.split("/"), other.split("/")];
  const i = a.findIndex((part, place) => part !== b[place]);
  return i < 0 ? a.length - b.length : b[i] === undefined || a[i] > b[i] ? 1 : -1;
}

// What was dropped: { folder, files } for each item, with the name of the folder or null, and { path, open } for each
// file. A page from a file may list folders only by handles, which not every browser has; other pages also by entries.
// Both must be asked for before the drop is over.
function listDropped(items) {
  const found = [...items].filter(({ kind }) => kind === "file").map((item) => {
    const entry = item.webkitGetAsEntry?.();
    const isFolder = Boolean(entry?.isDirectory);
    return { entry, isFolder, file: item.getAsFile(), handle: isFolder ? item.getAsFileSystemHandle?.() : null };
  });
  return Promise.all(found.map(async ({ handle, entry, file, isFolder }) => {
    const files = [];
    if (!isFolder) return { folder: null, files: [{ path: file.name, open: () => file }] };
    if (handle) await walkHandle(await handle, entry.name, files);
    else await walkEntry(entry, entry.name, files);
    return { folder: entry.name, files };
  }));
}

async function walkHandle(handle, path, found) {
  if (handle.kind === "file") found.push({ path, open: () => handle.getFile() });
  else for await (const one of handle.values()) await walkHandle(one, `${path}/${one.name}`, found);
}

async function walkEntry(entry, path, found) {
  if (entry.isFile) return found.push({ path, open: () => new Promise((...ends) => entry.file(...ends)) });
  const reader = entry.createReader();
  for (;;) { // it gives some at a time
    const part = await new Promise((...ends) => reader.readEntries(...ends));
    if (!part.length) return null;
    for (const one of part) await walkEntry(one, `${path}/${one.name}`, found);
  }
}

// Add files as they are, and the images of folders.
async function addListed(listed) {
  const notes = [];
  for (const { folder, files } of listed) {
    const roles = { image: [], mask: [], hidden: [], other: [] };
    for (const one of files) roles[folder === null ? "image" : roleOf(one.path)].push(one);
    const images = roles.image.sort(byPath);
    if (folder !== null) notes.push(TEXT.listed(folder, images.length, roles));
    const opened = await Promise.all(images.map(({ open }) => open()));
    add(opened, "", images.map(({ path }) => path));
  }
  $("listed").textContent = notes.join(" ");
}

// Add what `listing` gives. A folder that cannot be listed is told.
async function addFrom(listing) {
  try {
    await addListed(await listing);
  } catch (error) {
    $("listed").textContent = TEXT.notListed(error.message);
  }
}
