"""`fettle crossfit`: judge what a search finds, or a fixed recipe, on every image, fold by fold.

With `recipe: auto` each fold searches on its own training and validation images. A recipe that a
search on these images found before is refused: it would be judged by images that chose it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from fettle.cli.run import JsonOption, ParamsOption, SetOption, lay_out, recover, stale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fettle.evaluation.cross_fitting import PooledFolds
    from fettle.params import Params
    from fettle.params_schema import Budget
    from fettle.project import Project
    from fettle.release.verdict_ledger import LedgerLine

LAST = "verdict"  # of the stages that a fold needs: nothing is packaged


class FoldRow(TypedDict):
    """One fold, judged on its own part: how many images, and bare figures of its verdict."""

    fold: int
    n: int
    target: str
    float_accuracy: float
    accuracy: float
    drop: float
    params_ratio: float
    macs_ratio: float


def crossfit(
    folds: Annotated[int, typer.Option(min=2, max=20, help="How many parts test in turn.")] = 5,
    params: ParamsOption = None,
    set_: SetOption = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder or manifest of the data, for image_folder.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Train, compress and judge once a fold, then hold the budget against all images together.

    Example: fettle crossfit --folds 5 --set compress.recipe='[{use: prune, keep_fraction: 0.5}]'
    """
    from fettle import project as projects
    from fettle.evaluation import cross_fitting as pooling
    from fettle.params import load
    from fettle.release import verdict_ledger

    home = projects.find()
    os.environ.update(projects.environment(home))
    overrides = list(set_ or [])
    settings = load(params or home.root / "params.yaml", overrides)
    lines = verdict_ledger.read(home.root / verdict_ledger.NAME)
    answers, rows = [], []
    with projects.hold(home, " ".join(["fettle", *sys.argv[1:]])):
        for number in range(1, folds + 1):
            split = {**settings.ingest.split.model_dump(), "fold": {"number": number, "of": folds}}
            asked = [*overrides, f"ingest.split={json.dumps(split)}"]
            place, _ = lay_out(home, params, asked, data=data)
            refuse_found(settings, lines, source_digest(place))
            print(f"fold {number} of {folds}", file=sys.stderr, flush=True)
            folder = reproduce(place)
            answers.append(pooling.read(folder))
            rows.append(summary(number, folder, settings.compress.budget.metric))
    images = sum(row["n"] for row in rows)
    budget = pooled_budget(settings.compress.budget, images)
    show(rows, pooling.pool(answers, budget), budget, as_json=json_)


def pooled_budget(asked: Budget, images: int) -> Budget:
    """Return the budget that all folds' images together are held to: `auto` is decided by them."""
    from fettle.evaluation import accuracy_budget

    if asked.drop_max != "auto":
        return asked
    least = accuracy_budget.least_decidable_drop(images, confidence=asked.confidence)
    return asked.model_copy(update={"drop_max": least, "by_images": images})


def source_digest(place: Project) -> str:
    """Return the digest of the data, as the source gives it."""
    return str(json.loads((place.tree / "inputs" / "source.json").read_text())["digest"])


def refuse_found(settings: Params, lines: Sequence[LedgerLine], data: str) -> None:
    """Raise ParamsError for a recipe that a search on this data found, as the ledger says."""
    from fettle.errors import ParamsError
    from fettle.release import verdict_ledger

    recipe = settings.compress.recipe
    if recipe != "auto" and verdict_ledger.found_by_search(lines, recipe, data):
        raise ParamsError(
            "cross-fitting judges no recipe by the images that found it",
            got=f"compress.recipe: {' > '.join(str(step['use']) for step in recipe)}",
            rule=f"a search on this very data found it ({verdict_ledger.NAME}), for other epochs "
            "perhaps",
            fix="--set compress.recipe=auto: each fold then searches on its own images",
        )


def reproduce(place: Project) -> Path:
    """Run the stages up to the verdict, those that are stale; return the verdict's folder."""
    from fettle import import_isolation
    from fettle.adapters import dvc_graph

    import_isolation.load("flows")
    from flows.release import STAGE_TIMEOUT_S, failure

    recover(place)
    stages, changed = stale(place)
    context = dvc_graph.warm_parent()
    due = set(changed) | dvc_graph.downstream(stages, set(changed))
    unneeded = dvc_graph.downstream(stages, {LAST})
    for name in stages:
        if name not in due - unneeded:
            continue
        print(f"  {name}", file=sys.stderr, flush=True)
        code, log = dvc_graph.run_stage(
            context, place.tree, name, force=False, timeout_s=STAGE_TIMEOUT_S, on_tick=lambda: None
        )
        if code != 0:
            raise failure(place.tree, name, code, log.read_text(errors="replace"))
    return place.tree / "artifacts" / LAST


def summary(number: int, verdict: Path, metric: str) -> FoldRow:
    """Return a fold's row of the table."""
    from fettle.facts.verdict_facts import VERDICT, VerdictDocument

    found = VerdictDocument.read(verdict / VERDICT)
    return FoldRow(
        fold=number,
        n=found.n,
        target=found.target,
        float_accuracy=found.measures["float_accuracy"].value,
        accuracy=found.measures["accuracy"].value,
        drop=found.measures[f"{metric}_drop"].value,
        params_ratio=found.measures["params_ratio"].value,
        macs_ratio=found.measures["macs_ratio"].value,
    )


def show(
    rows: list[FoldRow],
    pooled: PooledFolds,
    asked: Budget,
    *,
    as_json: bool,
) -> None:
    """Print the folds and their sum, as a table or as JSON."""
    found = pooled.judgement
    if as_json:
        whole = {
            "n": sum(row["n"] for row in rows),
            "float_accuracy": pooled.float_accuracy.to_dict(),
            "accuracy": pooled.accuracy.to_dict(),
            "drop": pooled.drop.to_dict(),
            "budget": {**asked.recorded(), "status": found.status, "bound": found.bound},
        }
        print(json.dumps({"folds": rows, "pooled": whole}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("fold", "n", "float %", "small %", "drop", "params x", "MACs x", "target"):
        table.add_column(name, justify="left" if name == "target" else "right")
    for row in rows:
        table.add_row(
            str(row["fold"]),
            f"{row['n']:,}",
            f"{100 * row['float_accuracy']:.1f}",
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['drop']:+.2f}",
            f"{row['params_ratio']:.1f}",
            f"{row['macs_ratio']:.1f}",
            row["target"],
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"all {sum(row['n'] for row in rows):,} images: {asked.metric} drops by "
        f"{100 * pooled.drop.value:.2f} points, {asked.confidence:.0%} bound "
        f"{100 * found.bound:.2f}; the budget of {100 * asked.drop_share:g} is {found.status}"
    )
