"""Judge every hardware target in one run: which ships, on what evidence (`make bench-targets`).

A fresh clone with an empty home runs the line once for each data set with all targets asked for:
the digits (720 validation images) and, with `--clothing FOLDER`, photos of clothes in their own
splits. A row a target holds its paired drop of accuracy on the validation images, and in words its
evidence, its verdict and why. Toolchains that are not installed make their targets `unavailable`:
`fettle targets install NAME` first (`--toolchains FOLDER` says where they lie). Writes
benchmarks/results/targets.json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks import benchmark_row, main, row_origin, table
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.run_report import Interval
from fettle import plugins
from fettle.hardware.targets import Target
from fettle.params import load

NAME = "targets"
# 720 validation images decide a drop of two points; the default split has 180, which decide none.
DIGITS = ("ingest.split={train: 0.3, validation: 0.4, test: 0.3}",)
# The clothes' own validation folder has 341 images: it decides five points, stated for each target.
CLOTHING = ("evaluate.accuracy_images_min=341",)
WIDER = 0.05
RAN = (0, 2)  # 2: the line ran to its end, and its gate did not pass
ANSWERED = ("measured", "emulated", "estimated")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)  # other keys are the report's own


class _Parity(_Part):
    cosine: float


class _Latency(_Part):
    p50: float


class JudgedTarget(_Part):
    """A target's row of the report: of "fettle.report/1" what becomes a row here."""

    target: str
    verdict: str
    evidence: str
    reason: str | None
    chosen: bool
    size_bytes: int | None
    drop: Interval | None
    parity: _Parity | None
    latency_ms: _Latency | None
    accelerator_share: float | None
    next_command: str | None


class TargetsReport(_Part):
    """The targets of a finished run."""

    targets: tuple[JudgedTarget, ...]


def settings(names: Sequence[str], of_set: Sequence[str], *, wider: float | None) -> list[str]:
    """Lay out the `--set` of a run: every target, and a wider budget for those not timed here."""
    values = [f"targets=[{', '.join(names)}]", *of_set]
    if wider is not None:
        untimed = [name for name in names if _record(name).evidence in ("emulated", "estimated")]
        stated = ", ".join(f"{name}: {wider:g}" for name in untimed)
        values.append(f"evaluate.drop_max_of_target={{{stated}}}")
    return [word for value in values for word in ("--set", value)]


def _record(name: str) -> Target:
    record: Target = plugins.resolve("targets", name, where="targets").TARGET
    return record


def of_target(name: str, one: JudgedTarget, seed: int) -> BenchmarkRow:
    """Make a target's row: its paired drop, or why there is none."""
    said = [f"{one.evidence}; {one.verdict}{', served' if one.chosen else ''}"]
    if one.size_bytes is not None:
        said.append(f"{one.size_bytes:,} bytes")
    if one.parity is not None:
        said.append(f"cosine {one.parity.cosine:.6f}")
    if one.latency_ms is not None:
        said.append(f"p50 {one.latency_ms.p50:.3f} ms")
    if one.accelerator_share is not None:
        said.append(f"{one.accelerator_share:.0%} of the operators on the accelerator")
    said.append(one.reason or "")
    note = "; ".join(filter(None, said))
    what = f"{name}: {one.target}, drop of accuracy"
    if one.drop is None:
        return benchmark_row.not_measured(what, "1", "", why=note)
    return benchmark_row.measured(
        what,
        one.drop.value,
        low=one.drop.low,
        high=one.drop.high,
        unit="1",
        n=one.drop.n,
        seeds=[seed],
        note=note,
    )


def counts(name: str, rows: Sequence[JudgedTarget], seed: int) -> list[BenchmarkRow]:
    """Count what the table holds: judged, of how many families, with an interval, shipped."""
    # CUDA's rows are counted apart: they can be judged only where such a device is.
    apart = [row for row in rows if row.target.startswith("nvidia_")]
    others = [row for row in rows if row not in apart]
    judged = [row for row in others if row.drop is not None and row.evidence in ANSWERED]
    shipped = [row for row in others if row.verdict == "ship"]
    unverified = [row for row in rows if row.verdict == "ship" and row.drop is None]
    families = sorted({_record(row.target).family for row in others})
    figures: Mapping[str, tuple[int, int, str]] = {
        "targets judged or unavailable with a reason": (
            sum(row.drop is not None or bool(row.reason) for row in others), 20, "",
        ),
        "hardware families": (len(families), 12, ", ".join(families)),
        "targets judged by a paired interval": (len(judged), 14, ""),
        "targets shipped": (len(shipped), 12, ", ".join(row.target for row in shipped)),
    }  # fmt: skip
    found = [
        benchmark_row.measured(
            f"{name}: {what}", count, unit="", n=len(others), seeds=[seed],
            goal=f">= {least}", holds=count >= least, note=note,
        )
        for what, (count, least, note) in figures.items()
    ]  # fmt: skip
    return [
        *found,
        benchmark_row.measured(
            f"{name}: unverified and shipped", len(unverified), unit="", n=len(rows),
            seeds=[seed], goal="<= 0", holds=not unverified,
        ),
        benchmark_row.measured(
            f"{name}: NVIDIA targets, counted apart", len(apart), unit="", n=len(apart),
            seeds=[seed], note=", ".join(f"{row.target} {row.verdict}" for row in apart),
        ),
    ]  # fmt: skip


def measure(
    tree: Path, environ: dict[str, str], name: str, words: Sequence[str], project: Path
) -> list[BenchmarkRow]:
    """Run the line in `project` with these words; return the rows of its report."""
    seed = load(project / "params.yaml").seed
    main.fettle(tree, environ, "run", *words, codes=RAN, within=project)
    text = main.fettle(tree, environ, "report", "--json", *words, within=project)[1]
    rows = TargetsReport.model_validate_json(text).targets
    return [of_target(name, row, seed) for row in rows] + counts(name, rows, seed)


def run() -> None:
    """Judge all targets on the chosen sets; merge the rows into benchmarks/results/targets.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="these targets; else all")
    parser.add_argument("--clothing", type=Path, help="the photos of clothes, instead of digits")
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--toolchains", type=Path, default=caches / "fettle" / "toolchains")
    asked = parser.parse_args()
    names = asked.only or plugins.names("targets")
    origin = row_origin.take(row_origin.command_line("benchmarks.judged_targets"))
    with main.clone() as (tree, environ):
        main.set_up(tree, environ)
        environ["FETTLE_TOOLCHAINS"] = str(asked.toolchains.resolve())
        if asked.clothing is None:
            words = settings(names, DIGITS, wider=None)
            rows = measure(tree, environ, "digits", words, tree)
        else:
            data = ("--data", str(asked.clothing.resolve()))
            main.fettle(tree, environ, "init", "clothing", *data, within=tree.parent)
            words = settings(names, CLOTHING, wider=WIDER)
            rows = measure(tree, environ, "clothing", words, tree.parent / "clothing")
        table.write(NAME, rows, origin)


if __name__ == "__main__":
    run()
