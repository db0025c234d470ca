"""Page sections, the smaller tables: headline tiles, lineage, environment, commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from fettle.facts.validate_facts import ValidationDocument
from fettle.facts.verdict_facts import ConfusionDocument
from fettle.measure import Measure
from fettle.report import number_format
from fettle.report.report_document import Git
from fettle.report.report_figures import phase_changes
from fettle.report.report_values import RECALL, Facts, StepFacts

CONFUSED_PAIRS = 8
DIGEST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline number, with its interval or its reason below."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class ClassRecall:
    """A class with its recall by both models."""

    name: str
    float: Measure | None
    shipped: Measure | None


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Images of one class taken for another, and their share of the class."""

    true: str
    predicted: str
    images: int
    share: float


class StepRow(TypedDict):
    """A step of the recipe in words."""

    use: str
    params: int | float | None
    macs: int | float | None
    bought: str
    cost: str
    accuracy: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class LineageLink:
    """One link of the chain from data to Bento."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A data check: its rule, what was observed, its colour and its word."""

    rule: str
    observed: str
    badge: str
    word: str


def tiles(facts: Facts) -> list[Tile]:
    """Return the headline numbers: parameters, size, latency, and what they cost."""
    ratios, reasons = facts.compression, {gap.path: gap.reason for gap in facts.gaps}
    found = []
    for name, key, measure in (
        ("fewer parameters", "params_ratio", ratios.params_ratio),
        ("smaller file", "size_ratio", ratios.size_ratio),
        ("lower latency", "latency_ratio", ratios.latency_ratio),
    ):
        if measure is None:
            reason = reasons.get(f"compression.{key}", number_format.NOT_MEASURED)
            found.append(Tile(name, number_format.DASH, reason))
            continue
        note = "exact" if measure.low is None else f"95 %: {_ends(measure)}"
        found.append(Tile(name, number_format.times(measure), note))
    return [*found, _cost(facts, reasons)]


def _ends(measure: Measure) -> str:
    return number_format.times_interval(measure).partition("[")[2].rstrip("]").replace(", ", " to ")


def _cost(facts: Facts, reasons: Mapping[str, str]) -> Tile:
    if facts.quality is None:
        return Tile(
            "drop on test", number_format.DASH, reasons.get("quality", number_format.NOT_MEASURED)
        )
    main = facts.quality.main
    name = f"{number_format.metric(main.name)} drop on {main.split}, points"
    if main.drop is None:
        return Tile(name, number_format.DASH, number_format.NOT_MEASURED)
    value, _, ends = number_format.points_interval(main.drop).partition(" [")
    note = f"95 %: {ends.rstrip(']').replace(', ', ' to ')}; " if ends else ""
    return Tile(name, value, f"{note}n = {number_format.count(main.drop.n)}")


def recalls(facts: Facts) -> list[ClassRecall]:
    """List each class with its recall by both models."""
    metrics = facts.quality.metrics if facts.quality else {}
    return [
        ClassRecall(name.removeprefix(RECALL), m.float_, m.compressed)
        for name, m in sorted(metrics.items())
        if name.startswith(RECALL)
    ]


def confused(confusion: ConfusionDocument | None) -> list[ConfusedPair]:
    """List the pairs of classes mixed up most often, most images first."""
    if not confusion:
        return []
    classes = confusion.classes
    pairs = [
        ConfusedPair(classes[true], classes[predicted], images, images / sum(row))
        for true, row in enumerate(confusion.counts)
        for predicted, images in enumerate(row)
        if images and true != predicted
    ]
    return sorted(pairs, key=lambda p: (-p.images, p.true, p.predicted))[:CONFUSED_PAIRS]


def steps(facts: Facts) -> list[StepRow]:
    """List what was left after each step of the recipe, and what it bought; the float model first.

    `bought` and `cost` compare with the step before.
    """
    rows = facts.details.steps
    return [
        {
            "use": step.use,
            "params": step.params,
            "macs": step.macs,
            "bought": _bought(rows[index - 1], step) if index else number_format.DASH,
            "cost": _lost(rows[index - 1], step) if index else number_format.DASH,
            "accuracy": number_format.DASH
            if step.validation_accuracy is None
            else number_format.percent_bare(step.validation_accuracy),
            "notes": _notes(step),
        }
        for index, step in enumerate(rows)
    ]


def _bought(before: StepFacts, after: StepFacts) -> str:
    """Say what a step took away: "2.1x parameters, 1.8x multiply-adds"; a dash for nothing."""
    named = (
        (before.params, after.params, "parameters"),
        (before.macs, after.macs, "multiply-adds"),
    )
    gains = [
        f"{number_format.ratio(was / left)}x fewer {what}"
        for was, left, what in named
        if was and left and was > left
    ]
    return ", ".join(gains) or number_format.DASH


def _lost(before: StepFacts, after: StepFacts) -> str:
    """Say what a step cost in accuracy on validation, in points with a sign; gains are positive."""
    if before.validation_accuracy is None or after.validation_accuracy is None:
        return number_format.DASH
    change = 100 * (after.validation_accuracy - before.validation_accuracy)
    return f"{change:+.1f}" if abs(change) >= 0.05 else "0.0"


def _notes(step: StepFacts) -> list[str]:
    kept = [f"{name} kept whole: {reason}" for name, reason in sorted(step.skipped.items())]
    return [*step.notes, *kept]


PHASES = {"unfreezing": "layers are unfrozen group by group", "all": "all layers are trained"}


def phases(facts: Facts) -> str:
    """Say what the dashed lines of the training curves mark; empty when there is none."""
    changes = phase_changes(facts.details.curve.root if facts.details.curve else ())
    said = [f"from epoch {epoch} {PHASES.get(name, name)}" for epoch, name in changes]
    return f"Dashed lines: {', '.join(said)}." if said else ""


def lineage(facts: Facts) -> list[LineageLink]:
    """List the chain that a release can be walked back along: data, code, run, model, Bento."""
    release = facts.release
    named = (
        ("data", release.data),
        ("git", _git(release.git)),
        ("run", release.run_id),
        ("release digest", release.digest),
        ("model version", release.model_version),
        ("Bento", release.bento),
        *((f"{part} licence", name or "not stated") for part, name in facts.licences.items()),
    )
    return [LineageLink(name, _short(value)) for name, value in named]


def _git(git: Git | None) -> str | None:
    """Say the commit, and whether the files differed from it; outside git, the sources' digest."""
    if git is None:
        return None
    if git.commit is None:
        return f"sources {git.source[:DIGEST_SHOWN]} (no git)"
    return f"{git.commit[:DIGEST_SHOWN]}{' + changes' if git.dirty else ''}"


def _short(value: str | None) -> str:
    """Shorten a hex digest; names and versions stay whole."""
    if value is None:
        return "not there yet"
    hexadecimal = len(value) >= 32 and all(sign in "0123456789abcdef" for sign in value)
    return value[:DIGEST_SHOWN] if hexadecimal else value


# what follows when a rule is broken, as validate names it
BROKEN = {"quarantine": "set aside", "warn": "warning", "refuse": "refused"}


def checks(document: ValidationDocument | None) -> list[CheckRow]:
    """List the data checks: the rule as a sentence, what was observed, badge class and word."""
    return [
        CheckRow(
            rule=check.rule,
            observed=check.observed,
            badge="pass" if check.passed else "warn",
            word="passed" if check.passed else BROKEN[check.failing],
        )
        for check in (document.checks if document else ())
    ]


def environment(facts: Facts) -> list[tuple[str, str]]:
    """Flatten the machine and the versions to (name, value) for a list."""
    known = facts.environment
    given = known.machine.model_dump(exclude_unset=True) if known.machine else {}
    machine = {name: value for name, value in given.items() if name not in ("python", "packages")}
    versions = ", ".join(f"{n} {v or 'absent'}" for n, v in known.versions.items())
    return [
        *((name, _said(value)) for name, value in sorted(machine.items())),
        ("python", known.python),
        ("packages", versions),
    ]


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(inner) for inner in value)
    return number_format.NOT_MEASURED if value is None else str(value)


def recipes(facts: Facts) -> list[tuple[str, str]]:
    """Return the commands that make this run again, look at it, and serve what it made."""
    release = facts.release
    commit = release.git.commit if release.git else None
    checkout = f"git checkout {commit}\n" if commit else ""
    tag = release.bento or f"{facts.name}:latest"
    return [
        ("Run it again", f"{checkout}fettle run"),
        ("Why would a stage run?", "fettle why evaluate\ndvc dag"),
        ("Serve the release", f"fettle serve {tag}"),
        ("These facts for programs", "fettle report --json"),
    ]
