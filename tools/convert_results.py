"""Benchmark results of form 1 become form 2, once: each row gets its own origin and history.

Form 1 stated one machine and one command for a whole file, those of its last writer. What is true
of a row is read from git's history of the file: the commit that a figure first stands in is its
`recorded_in`, that commit's day the latest day it can be from, the file of that commit its machine
and versions. Where that says nothing of a row it is null:

- `commit`: which code ran is told by no file;
- `seeds`: likewise;
- `cores` of rows recorded by the commit after one whose file names another count, unless the file
  had one writer: its last writer may be another than the row's;
- `command` in main.json, where the file's last command does not measure the row. In the others a
  command was the same for all rows, or follows from the row's own file.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks import table
from benchmarks.benchmark_row import BenchmarkRow, Origin

# of the part of benchmarks/main.py that measures a row
PARTS = {
    "set-up": "setup",
    "`fettle --help`": "quick",
    "an error": "quick",
    "main job on digits": "digits",
    "`fettle run`": "digits",
    "orchestration": "digits",
    "digits:": "digits",
    "photos:": "photos",
    "main job on photos": "photos",
    "fashion_mnist:": "fashion",
    "main job on Fashion": "fashion",
}
# of the file of benchmarks/serve_rows that measures a row
SERVED = {
    "raw image": "throughput", "requests refused": "throughput", "images/s": "batch",
    "requests/s, times": "rivals", "chaos": "chaos", "router": "router",
}  # fmt: skip
NO_GOAL = ("", "none", "printed")
FIGURE = ("value", "low", "high", "n")


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


def starting(kinds: dict[str, str], what: str) -> str:
    return next(kind for start, kind in kinds.items() if what.startswith(start))


def command(name: str, doc: dict, what: str) -> str | None:
    if name == "serve":
        return f"python -m benchmarks.serve --only {starting(SERVED, what)}"
    if name == "main" and starting(PARTS, what) not in doc["command"].split():
        return None
    return doc["command"]


def converted(row: dict, doc: dict, origin: Origin) -> BenchmarkRow:
    goal = "" if row["goal"] in NO_GOAL else row["goal"]
    value, reason, note = row["value"], None, row.get("note", "")
    if note.startswith("none of ours is as accurate"):  # 0.0 of n = 0 stood for a goal missed
        ours = row["what"].split(":")[0] + ": accuracy on test of recipe"
        row = {**row, "n": sum(other["what"].startswith(ours) for other in doc["rows"])}
        value, reason, note = None, note, ""
    elif row["n"] == 0 or value is None:
        value, reason, note = None, note.removeprefix("not measured: "), ""
    return BenchmarkRow(
        what=row["what"], value=value, unit=row["unit"], n=row["n"], seeds=None, goal=goal,
        low=None if value is None else row["low"], high=None if value is None else row["high"],
        met=row["met"] if goal and row["n"] >= 2 else None, note=note, reason=reason, origin=origin,
    )  # fmt: skip


def convert(name: str) -> None:
    path = f"benchmarks/results/{name}.json"
    known: dict[str, tuple[dict, BenchmarkRow]] = {}
    cores = None
    for commit in git("log", "--reverse", "--format=%H", "--", path).split():
        doc = json.loads(git("show", f"{commit}:{path}"))
        if doc.get("schema"):
            break
        date = git("show", "-s", "--format=%cd", "--date=format:%Y-%m-%d", commit).strip()
        machine = doc["machine"]
        changed = [
            row for row in doc["rows"]
            if row["what"] not in known
            or any(known[row["what"]][0][key] != row[key] for key in FIGURE)
        ]  # fmt: skip
        one_writer = {row["what"].split(",")[0].split(":")[0] for row in changed}
        sure = cores in (None, machine["cores"]) or len(one_writer) == 1
        cores = machine["cores"]
        new = {}
        for row in doc["rows"]:
            what = row["what"]
            if row not in changed:  # the same run; its goal or note may be worded anew
                old = known[what][1]
                kept = converted(row, doc, old.origin).model_copy(update={"history": old.history})
                new[what] = (row, kept)
                continue
            packages = {**machine.get("packages", {}), **doc.get("versions", {})}
            made = converted(row, doc, Origin(
                cpu_model=machine["cpu"], cpu_flags=tuple(machine["flags"]),
                cores=machine["cores"] if sure else None,
                platform=f"{machine['os']} {machine['machine']}",
                versions={"python": machine["python"], **dict(sorted(packages.items()))},
                date=date, command=command(name, doc, what), recorded_in=commit,
            ))  # fmt: skip
            new[what] = (row, made.after(known[what][1]) if what in known else made)
        known = new
    Path(path).write_text(table.form([row for _, row in known.values()]))
    runs = sum(1 + len(row.history) for _, row in known.values())
    print(f"{path}: {len(known)} rows, {runs} runs")


for results in ("main", "compress", "serve", "sim-canary"):
    convert(results)
