// What lies under the pointer, and where a class is: for the result of a segmentation, which names
// its classes in `data-names` and packs label and score of each pixel into the colours of an image
// (the upper nine bits are the label, the lower fifteen its share of the score in `data-most`).
const hits = { source: "", width: 0, height: 0, values: null };

function read(view) {
  const image = view.querySelector(".hits");
  if (hits.source === image.src || !image.complete || !image.naturalWidth) return hits.values;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(image, 0, 0);
  const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
  hits.values = new Uint32Array(canvas.width * canvas.height);
  for (let i = 0; i < hits.values.length; i++)
    hits.values[i] = (bytes[4 * i] << 16) | (bytes[4 * i + 1] << 8) | bytes[4 * i + 2];
  [hits.source, hits.width, hits.height] = [image.src, canvas.width, canvas.height];
  return hits.values;
}

const score = (view, value) => (((value & 32767) / 32767) * view.dataset.most).toFixed(3);

function tell(view, event) {
  const values = read(view), box = view.querySelector(".stage").getBoundingClientRect();
  if (!values) return;
  const x = Math.floor(((event.clientX - box.left) / box.width) * hits.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * hits.height);
  const tip = view.querySelector(".tip");
  tip.hidden = x < 0 || y < 0 || x >= hits.width || y >= hits.height;
  if (tip.hidden) return;
  const value = values[y * hits.width + x];
  const name = JSON.parse(view.dataset.names)[value >> 15];
  tip.textContent = value >> 15 ? `${name} ${score(view, value)}` : name;
  tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - 120)}px`;
  tip.style.top = `${event.clientY - box.top + 12}px`;
}

function show(view, label) {
  const canvas = view.querySelector(".only"), values = read(view);
  canvas.hidden = !label || !values;
  if (canvas.hidden) return;
  [canvas.width, canvas.height] = [hits.width, hits.height];
  const context = canvas.getContext("2d"), shade = context.createImageData(hits.width, hits.height);
  for (let i = 0; i < values.length; i++) shade.data[4 * i + 3] = values[i] >> 15 == label ? 0 : 190;
  context.putImageData(shade, 0, 0);
}

const near = (event, kind) => event.target.closest && event.target.closest(kind);
element.addEventListener("mousemove", (event) => {
  const stage = near(event, ".stage");
  if (stage) tell(stage.closest(".found"), event);
});
for (const [name, on] of [["mouseover", 1], ["mouseout", 0], ["focusin", 1], ["focusout", 0]])
  element.addEventListener(name, (event) => {
    const entry = near(event, "[data-label]"), stage = near(event, ".stage");
    if (entry) show(entry.closest(".found"), on ? Number(entry.dataset.label) : 0);
    if (stage && !on) stage.querySelector(".tip").hidden = true;
  });
