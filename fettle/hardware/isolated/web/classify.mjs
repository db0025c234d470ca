// The page: loads model.onnx, and classifies the photo that its user chooses.
//
// Labels and preprocessing are the release's own, two folders up (targets/NAME/index.html in it).
// A page outside a release reads them from beside itself; without labels classes are numbers.

import * as ort from "./ort.wasm.min.mjs";
import { modelInput } from "./resize.mjs";

const SHOWN = 5;
const said = document.getElementById("said");
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;

async function readJson(name) {
  for (const folder of ["../../", "./"]) {
    const answer = await fetch(new URL(folder + name, import.meta.url)).catch(() => null);
    if (answer?.ok) return answer.json();
  }
  return null;
}

// Bytes RGBA of a photo, upright by its EXIF tag, laid on white where it is transparent.
async function pixels(file) {
  const image = await createImageBitmap(file, { imageOrientation: "from-image" });
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d", { colorSpace: "srgb" });
  context.fillStyle = "white";
  context.fillRect(0, 0, image.width, image.height);
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
}

function softmax(logits) {
  const top = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - top));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function show(shares, labels, ms) {
  const order = shares.map((share, index) => [share, index]).sort((a, b) => b[0] - a[0]);
  const rows = order.slice(0, SHOWN).map(([share, index]) => {
    const row = document.createElement("tr");
    row.insertCell().textContent = labels?.[index] ?? `class ${index}`;
    const cell = row.insertCell();
    cell.className = "share";
    cell.dataset.share = share;
    cell.textContent = `${(100 * share).toFixed(1)} %`;
    return row;
  });
  document.getElementById("answers").replaceChildren(...rows);
  said.textContent = `It took ${ms.toFixed(1)} ms in this browser.`;
}

async function start() {
  const pre = await readJson("preprocess.json");
  if (!pre) throw new Error("there is no preprocess.json: serve the whole release folder");
  const labels = await readJson("labels.json");
  const model = new URL("model.onnx", import.meta.url).href;
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const [input, output] = [session.inputNames[0], session.outputNames[0]];
  const dims = [1, pre.channels, pre.size_px, pre.size_px];
  const field = document.getElementById("photo");
  field.addEventListener("change", async () => {
    const file = field.files[0];
    if (!file) return;
    try {
      const { data, width, height } = await pixels(file);
      const tensor = new ort.Tensor("float32", modelInput(data, width, height, pre), dims);
      const started = performance.now();
      const answers = await session.run({ [input]: tensor });
      show(softmax(answers[output].data), labels, performance.now() - started);
      const shown = document.getElementById("shown");
      shown.src = URL.createObjectURL(file);
      shown.hidden = false;
    } catch (error) {
      document.getElementById("answers").replaceChildren();
      said.textContent = `This file cannot be classified: ${error.message ?? error}`;
    }
  });
  said.textContent = "Choose a photo.";
}

start().catch((error) => {
  said.textContent = `The model cannot be loaded: ${error.message ?? error}`;
});
