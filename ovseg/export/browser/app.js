// From a photo and words to labels: looks words up as ovseg's table of words does, and runs a graph
// that does all the rest. `OVSEG` holds the tables, the graph, and after a run what was found.
"use strict";

const LONGEST_SIDE = 1024; // pixels of a photo that is labelled; larger ones are made smaller
const ARTICLES = new Set(["a", "an", "the"]);
const id = (name) => document.getElementById(name);
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const places = new Map(OVSEG.words.map((word, place) => [word, place]));
const refused = new Set(OVSEG.refused), around = new Set(OVSEG.around);
const ends = new Set(OVSEG.ends), measures = new Set(OVSEG.measures);
const vectors = new Float32Array(bytes(OVSEG.vectors).buffer);
const width = OVSEG.classes + 2 * OVSEG.captions + 2;
let session = null, photo = null;

// What a noun may be the plural of, itself first.
function singulars(noun) {
  const forms = [noun], irregular = OVSEG.singular[noun.replaceAll(" ", "_")];
  if (irregular) forms.push(irregular.replaceAll("_", " "));
  for (const [ending, instead] of [["ies", "y"], ["es", ""], ["s", ""], ["men", "man"]])
    if (noun.endsWith(ending) && noun.length > ending.length + 1)
      forms.push(noun.slice(0, -ending.length) + instead);
  return forms;
}

// Whether a word may say what something does: `sitting`, but not `king`.
const acts = (word) => word.length >= 5 && word.endsWith("ing");

// The words of a phrase up to what says where it is, then without what says what it does.
function heads(words) {
  for (let place = 1; place < words.length; place++) {
    const behind = words.slice(place + 1), head = words.slice(0, place);
    if (words[place] === "of" && measures.has(words[place - 1]) && behind.length) return heads(behind);
    if (ends.has(words[place]))
      return head.length > 1 && acts(head.at(-1)) ? [head, head.slice(0, -1)] : [head];
    if (acts(words[place]) && behind.length && ARTICLES.has(behind[0])) return [head];
  }
  return [words];
}

// The table's word for a phrase, or for the last words of its head, and what is left out.
function resolve(phrase) {
  const spelled = phrase.toLowerCase().replaceAll("_", " ");
  for (const text of [spelled, spelled.replaceAll("-", " ")]) {
    const words = text.split(/\s+/).filter(Boolean);
    const parts = heads(words).flatMap((head) => head.map((_, start) => head.slice(start)));
    for (const part of [words, ...parts])
      for (const form of singulars(part.join(" "))) {
        if (places.has(form)) return { word: form, left: words.filter((each) => !part.includes(each)) };
        if (refused.has(form)) return { word: null, left: [] };
      }
  }
  return { word: null, left: [] };
}

// Shares of the classes, then twice what captions say of the word and 1, the first time as far as they
// are trusted, then whether captions alone know it, which no word of the table is, and whether it is
// one for surroundings; zeros where the phrase is not known.
function embed(word, row) {
  if (word === null) return;
  const place = places.get(word), shares = OVSEG.shares[place], said = OVSEG.captions;
  for (let i = 0; i < shares.length; i += 2) row[shares[i]] = shares[i + 1];
  const vector = vectors.subarray(place * (said - 1), (place + 1) * (said - 1));
  for (const [start, share] of [[OVSEG.classes, OVSEG.trust[place]], [OVSEG.classes + said, 1]]) {
    row.set(vector.map((value) => share * value), start);
    row[start + said - 1] = share;
  }
  row[width - 1] = around.has(place) ? 1 : 0;
}

function classes(text) {
  const names = text.split(",").map((name) => name.trim().split(/\s+/).join(" ")).filter(Boolean);
  const plain = names.map((name) => name.toLowerCase());
  if (!names.length) throw new Error("name at least one class, as in cat,dog");
  if (names.length > 300) throw new Error("more than 300 words: ask for fewer at once");
  if (text.includes(";")) throw new Error("one name for a class here: synonyms are for ovseg segment");
  if (new Set(plain).size < plain.length) throw new Error("a class is named more than once");
  if (plain.includes("background")) throw new Error("background is there anyway: do not name it");
  return names;
}

async function open() {
  const url = URL.createObjectURL(new Blob([bytes(OVSEG.glue)], { type: "text/javascript" }));
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: { mjs: url } });
  ort.env.wasm.wasmBinary = bytes(OVSEG.code).buffer;
  return ort.InferenceSession.create(bytes(OVSEG.graph), { executionProviders: ["wasm"] });
}

// RGB, row by row, on white, upright.
async function pixelsOf(file) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  const image = await createImageBitmap(file, options).catch(() => {
    throw new Error(`${file.name}: no image that this browser can read`);
  });
  const scale = Math.min(1, LONGEST_SIDE / Math.max(image.width, image.height));
  const [wide, tall] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = new OffscreenCanvas(wide, tall);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, wide, tall);
  context.drawImage(image, 0, 0, wide, tall);
  const shown = context.getImageData(0, 0, wide, tall), rgb = new Uint8Array(3 * wide * tall);
  for (let i = 0, j = 0; i < shown.data.length; i += 4, j += 3)
    rgb.set(shown.data.subarray(i, i + 3), j);
  return { wide, tall, rgb, shown };
}

async function segment() {
  const names = classes(id("words").value), found = names.map(resolve);
  if (!photo) throw new Error("drop a photo first");
  const table = new Float32Array(names.length * width);
  found.forEach(({ word }, k) => embed(word, table.subarray(k * width, (k + 1) * width)));
  const odds = OVSEG.threshold * 2 ** Number(id("steps").value);
  const threshold = odds / (odds + 1 - OVSEG.threshold);
  const { wide, tall, rgb } = photo;
  session ??= await open();
  const run = await session.run(
    {
      image: new ort.Tensor("uint8", rgb, [tall, wide, 3]),
      class_embeddings: new ort.Tensor("float32", table, [names.length, width]),
      threshold: new ort.Tensor("float32", [threshold], []),
    },
    ["photo_labels"],
  );
  const labels = Uint16Array.from(run.photo_labels.data, Number);
  OVSEG.found = { wide, tall, labels, names };
  show(OVSEG.found, found);
}

function show({ wide, tall, labels, names }, found) {
  const canvas = id("shown"), counts = new Array(names.length + 1).fill(0);
  [canvas.width, canvas.height] = [wide, tall];
  const picture = new ImageData(new Uint8ClampedArray(photo.shown.data), wide, tall);
  labels.forEach((label, i) => {
    counts[label]++;
    const colour = OVSEG.palette[label > 255 ? ((label - 1) % 255) + 1 : label];
    if (label)
      for (let c = 0; c < 3; c++)
        picture.data[4 * i + c] = 0.45 * picture.data[4 * i + c] + 0.55 * colour[c];
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
  const entries = names.map((name, k) => [k + 1, name, counts[k + 1] / labels.length]);
  id("legend").replaceChildren(...entries.filter(([, , share]) => share).map(entry));
  const unknown = names.filter((_, k) => found[k].word === null);
  const partly = names.flatMap((name, k) =>
    found[k].left.some((word) => !ARTICLES.has(word)) ? [`${found[k].word} of ${name}`] : []);
  id("state").textContent = [
    unknown.length ? `Not known to the model: ${unknown.join(", ")}.` : "",
    partly.length ? `Understood only in part: ${partly.join(", ")}.` : "",
    `${wide} × ${tall} pixels labelled.`,
  ].filter(Boolean).join(" ");
}

function entry([label, name, share]) {
  const item = document.createElement("li"), swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = `rgb(${OVSEG.palette[((label - 1) % 255) + 1]})`;
  item.append(swatch, `${name} ${(100 * share).toFixed(1)}%`);
  return item;
}

async function attempt(work) {
  id("problem").textContent = "";
  id("state").textContent = "Working …";
  await new Promise((later) => setTimeout(later, 30)); // so that the line is seen
  try {
    await work();
  } catch (error) {
    id("problem").textContent = error.message;
    id("state").textContent = "";
  }
}

async function take(file) {
  if (!file) return;
  await attempt(async () => {
    photo = null;
    photo = await pixelsOf(file);
    await segment();
  });
}

id("photo").addEventListener("change", (event) => take(event.target.files[0]));
id("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(segment);
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    id("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
