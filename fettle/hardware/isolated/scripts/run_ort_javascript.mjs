// ONNX Runtime for JavaScript: load an ONNX and run it, by worker_harness.mjs. Which of its two
// packages the environment has decides: onnxruntime-node, native, or onnxruntime-web, the
// WebAssembly that a browser loads; one thread, as browsers allow it without special headers.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// this file lies in fettle's sources, the packages beside the Node.js that runs it
const packages = path.join(path.dirname(path.dirname(process.argv0)), "node_modules");
const require = createRequire(path.join(packages, "x.js"));
const web = fs.existsSync(path.join(packages, "onnxruntime-web"));
const name = web ? "onnxruntime-web" : "onnxruntime-node";
const page = web ? ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"] : [];

export async function toolkit() {
  require(name);
}

export async function compile({ model, out, entry }) {
  await open(model, 1);
  fs.copyFileSync(model, path.join(out, entry));
  for (const file of page) {
    fs.copyFileSync(path.join(packages, name, "dist", file), path.join(out, file));
  }
  return {};
}

export async function open(entry, threads) {
  const ort = require(name);
  if (web) {
    ort.env.wasm.numThreads = 1;
    if (threads > 1) throw new Error("WebAssembly runs on one thread here");
  }
  const options = web
    ? { executionProviders: ["wasm"] }
    : { executionProviders: ["cpu"], intraOpNumThreads: threads, interOpNumThreads: 1 };
  const session = await ort.InferenceSession.create(entry, options);
  const [input, output] = [session.inputNames[0], session.outputNames[0]];
  const { shape, type } = session.inputMetadata[0];
  if (type !== "float32") throw new Error(`its input is ${type}, not float32`);
  return {
    shape: shape.map((size) => (typeof size === "number" ? size : null)),
    run: async ({ data, dims }) => {
      const answers = await session.run({ [input]: new ort.Tensor("float32", data, dims) });
      return { data: answers[output].data, dims: answers[output].dims };
    },
  };
}
