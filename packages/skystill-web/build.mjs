// Builds src/skystill_web/built from the packages that `npm ci` installed: `npm ci && npm run build [FOLDER]`.
// The same lockfile gives the same bytes. Gzip differs between versions of Node, so hashes are of what is inside.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const OUT = process.argv[2] ?? "src/skystill_web/built";
const ORT = 'import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs"; globalThis.ort = ort;';
const USED = "BaseDecoder, addDecoder, fromBlob, getDecoder"; // what the page uses of geotiff.js
const GEOTIFF = `import { ${USED} } from "geotiff"; import { ZSTDDecoder } from "zstddec";
  globalThis.GeoTIFF = { ${USED}, ZSTDDecoder };`;
const lock = JSON.parse(readFileSync("package-lock.json", "utf8")).packages;
const bundled = new Set(["onnxruntime-web", "onnxruntime-common"]); // ort.wasm.bundle.min.mjs is bundled already

async function bundle(entry, name) {
  const { outputFiles, metafile } = await build({
    stdin: { contents: entry, resolveDir: "." },
    bundle: true, format: "iife", platform: "browser", target: "es2022", minify: true, charset: "ascii",
    legalComments: "none", metafile: true, write: false,
    alias: { "zstddec/stream": "zstddec" }, // the stream never ends where its data are damaged
    define: { "import.meta.url": "location.href" }, // threads of ort.js run the script of the worker that opens it
    logOverride: { "empty-import-meta": "silent" },
  });
  for (const input of Object.keys(metafile.inputs)) {
    const found = input.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
    if (found) bundled.add(found[1]);
  }
  return [name, Buffer.from(outputFiles[0].contents)];
}

function licence(name) {
  const folder = `node_modules/${name}`;
  const file = readdirSync(folder).find((one) => /^licen[cs]e(\.|$)/i.test(one));
  const own = `licences/${name.replaceAll("/", "-")}.txt`; // packages that ship without the text of their licence
  const text = readFileSync(file ? `${folder}/${file}` : own, "utf8").trim();
  return `${name} ${lock[folder].version} (${lock[folder].license})\n\n${text}\n`;
}

const parts = [
  await bundle(ORT, "ort.js"),
  await bundle(GEOTIFF, "geotiff.js"),
  ["ort.wasm", readFileSync("node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm")],
];
const names = [...bundled].sort();
const line = `\n${"-".repeat(80)}\n\n`;
const notices = readFileSync("licences/onnxruntime-third-party.txt", "utf8");
parts.push(["licences.txt", Buffer.from([...names.map(licence), notices].join(line))]);

mkdirSync(OUT, { recursive: true });
for (const [name, bytes] of parts) writeFileSync(`${OUT}/${name}.gz`, gzipSync(bytes, { level: 9 }));
const manifest = {
  packages: Object.fromEntries(names.map((name) => {
    const { version, license, integrity } = lock[`node_modules/${name}`];
    return [name, { version, license, integrity }];
  })),
  files: Object.fromEntries(parts.map(([name, bytes]) => [
    name, { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") },
  ])),
};
writeFileSync(`${OUT}/manifest.json`, `${JSON.stringify(manifest, null, 2)}\n`);
