// ONNX Runtime for JavaScript (onnxruntime-web): load an ONNX and run it, by worker_harness.mjs.
// Its WebAssembly is the same file that a browser loads; one thread, as browsers allow it without
// special headers.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// this file lies in fettle's sources, the packages beside the Node.js that runs it
const packages = path.join(path.dirname(path.dirname(process.argv0)), "node_modules", "x.js");
const require = createRequire(packages);

export async function toolkit() {
  require("onnxruntime-web");
}

export async function compile({ model, out, entry }) {
  await open(model, 1);
  fs.copyFileSync(model, path.join(out, entry));
  for (const file of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
    fs.copyFileSync(path.join(path.dirname(packages), "onnxruntime-web", "dist", file), path.join(out, file));
  }
  return {};
}

export async function open(entry, threads) {
  const ort = require("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  if (threads > 1) throw new Error("WebAssembly runs on one thread here");
  const options = { executionProviders: ["wasm"] };
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
