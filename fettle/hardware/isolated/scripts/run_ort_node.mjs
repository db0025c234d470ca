// ONNX Runtime for JavaScript (onnxruntime-node): load an ONNX and run it, by worker_harness.mjs.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// this file lies in fettle's sources, the packages beside the Node.js that runs it
const packages = path.join(path.dirname(path.dirname(process.argv0)), "node_modules", "x.js");
const require = createRequire(packages);

export async function toolkit() {
  require("onnxruntime-node");
}

export async function compile({ model, out, entry }) {
  await open(model, 1);
  fs.copyFileSync(model, path.join(out, entry));
  return {};
}

export async function open(entry, threads) {
  const ort = require("onnxruntime-node");
  const options = { executionProviders: ["cpu"], intraOpNumThreads: threads, interOpNumThreads: 1 };
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
