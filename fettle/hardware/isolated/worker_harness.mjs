// Worker harness for Node.js: serves a toolchain's script over JSON lines, as worker_harness.py does.
//
// Run as `node worker_harness.mjs SCRIPT LIFELINE ARRAYS` (two inherited file descriptors). The
// calls and their answers are those that worker_harness.py lists. SCRIPT exports
//
//     toolkit()                   import what running takes
//     open(entry, threads)        → {shape, run({data, dims}) → {data, dims}}
//     anything else               a function of an object of words; it returns an object
//
// What a library prints on stdout would be mistaken for an answer: it goes to stderr instead.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const RUNS = 3; // as in worker_harness.py
const [script, lifeline, arrays] = [process.argv[2], +process.argv[3], +process.argv[4]];

// A process of its own that kills this group once the owner of `lifeline` is gone, then deletes
// the working folder: a model may keep this thread busy for long.
function guard() {
  const words = `read -r nothing; kill -KILL -- -${process.pid}; rm -rf -- "$0"`;
  const watcher = spawn("/bin/sh", ["-c", words, process.cwd()], {
    detached: true,
    stdio: [lifeline, "ignore", "ignore"],
  });
  watcher.unref();
  fs.closeSync(lifeline);
}

// The .npy format, version 1: a text header, then float32, little-endian, in C order.
function readBatch() {
  const size = fs.fstatSync(arrays).size;
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) at += fs.readSync(arrays, bytes, at, size - at, at);
  const start = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, start);
  if (!header.includes("'<f4'") || !header.includes("'fortran_order': False")) {
    throw new Error(`a batch that is no float32 in C order: ${header.trim()}`);
  }
  const dims = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((x) => x.trim()).map(Number);
  const values = bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + size);
  return { data: new Float32Array(values), dims };
}

function writeBatch({ data, dims }) {
  const shape = dims.length === 1 ? `${dims[0]},` : dims.join(", ");
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape}), }`;
  const header = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n";
  const head = Buffer.from("\x93NUMPY\x01\x00..", "latin1");
  head.writeUInt16LE(header.length, 8);
  const body = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const bytes = Buffer.concat([head, Buffer.from(header, "latin1"), body]);
  fs.ftruncateSync(arrays, 0);
  for (let at = 0; at < bytes.length; ) at += fs.writeSync(arrays, bytes, at, bytes.length - at, at);
}

function peakBytes() {
  try {
    const line = fs.readFileSync("/proc/self/status", "utf8").match(/VmHWM:\s+(\d+)/);
    return Number(line[1]) * 1024;
  } catch {
    return process.resourceUsage().maxRSS * 1024;
  }
}

let model;
const bound = [];

function calls(functions) {
  return {
    open: async ({ entry, threads }) => {
      model = await functions.open(entry, threads);
      return { shape: model.shape };
    },
    run: async () => {
      writeBatch(await model.run(readBatch()));
      return {};
    },
    bind: () => ({ bound: bound.push(readBatch()) - 1 }),
    again: async ({ bound: number }) => {
      await model.run(bound[number]);
      return {};
    },
    time: async ({ bound: number }) => {
      await model.run(bound[number]);
      const started = process.hrtime.bigint();
      await model.run(bound[number]);
      return { ms: Number(process.hrtime.bigint() - started) / 1e6 };
    },
    memory: async ({ entry, threads, shape }) => {
      await functions.toolkit();
      const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
      const before = peakBytes();
      const opened = await functions.open(entry, threads);
      for (let run = 0; run < RUNS; run += 1) await opened.run({ data, dims: shape });
      return { bytes: Math.max(0, peakBytes() - before) };
    },
  };
}

guard();
for (const name of ["log", "info", "debug"]) console[name] = console.error;
let own;
let functions;
for await (const line of readline.createInterface({ input: process.stdin })) {
  let reply;
  try {
    const { call, words } = JSON.parse(line);
    functions ??= await import(pathToFileURL(path.resolve(script)).href);
    own ??= calls(functions);
    const answer = own[call] ?? functions[call];
    if (typeof answer !== "function") throw new Error(`no function ${call}`);
    reply = { answer: (await answer(words)) ?? {} };
  } catch (error) {
    reply = { error: `${error.name ?? "Error"}: ${error.message ?? error}` };
  }
  fs.writeSync(1, JSON.stringify(reply) + "\n");
}
