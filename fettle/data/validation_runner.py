"""Run every check over a table of images: what passes, what is set aside and why, what stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import plugins
from fettle.data.checks import CheckedTable, CheckLimits, Failing, Rule
from fettle.data.expectations import ExpectationResult, Validator
from fettle.data.image_table import SCHEMA, SPLITS
from fettle.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 5  # rows named in an error text: enough to find the pattern, few enough to read


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One row set aside, by one rule: a row that breaks two rules has two lines."""

    row: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Examination:
    """What validation found: all outcomes, the rows set aside, the rows that go on."""

    outcomes: list[ExpectationResult]
    lines: list[CheckResult]
    kept: list[str]
    classes: dict[str, dict[str, int]]
    overview: dict[str, dict[str, int]]

    @property
    def quarantined(self) -> int:
        """The number of rows set aside."""
        return len({line.row for line in self.lines})

    @property
    def by_rule(self) -> dict[str, int]:
        """The rows each rule set aside; a row may count for more than one."""
        return dict(sorted(Counter(line.rule for line in self.lines).items()))


def read_frame(images: Path) -> pd.DataFrame:
    """Read the table of images, but for the images.

    Raises DataError when it lacks a column.
    """
    import pyarrow.parquet as pq

    missing = [name for name in SCHEMA.names if name not in pq.read_schema(images).names]
    if missing:
        raise DataError(
            f"{images.name} has no column {', '.join(missing)}",
            rule="ingest writes them all",
            fix="delete artifacts/ingest and run `fettle run`",
        )
    columns = [name for name in SCHEMA.names if name != "bytes"]
    return pq.read_table(images, columns=columns).to_pandas()


def examine(
    frame: pd.DataFrame,
    limits: CheckLimits,
    *,
    quarantine_max_fraction: float,
    docs: Path | None = None,
) -> Examination:
    """Check `frame`, set rows aside, and check the classes that are left.

    Raises DataError when the table is empty, a rule says refuse, or the share of rows set aside is
    above `quarantine_max_fraction`.
    """
    if frame.empty:
        raise DataError("the data set has no images", fix="name other data in params.yaml: ingest")
    checks = [plugins.resolve("checks", name, where="checks") for name in plugins.names("checks")]
    rules: list[Rule] = [rule for check in checks for rule in check.rules(limits)]
    for check in checks:
        if hasattr(check, "derive"):
            frame = frame.assign(**check.derive(frame))
    validator = Validator(docs)
    outcomes = validator.run(frame, _on(rules, CheckedTable.IMAGES), name="images", key="row")
    refuse(outcomes, frame, "row")
    lines = set_aside(frame, outcomes)
    refuse_above(quarantine_max_fraction, lines, len(frame))
    classes = class_frame(frame, lines, limits.labels)
    outcomes += validator.run(
        classes, _on(rules, CheckedTable.CLASSES), name="classes", key="label"
    )
    refuse(outcomes[-len(_on(rules, CheckedTable.CLASSES)) :], classes, "label", aside=lines)
    validator.write_docs()
    gone = {line.row for line in lines}
    counts = classes.set_index("label")[list(SPLITS)].to_dict("index")
    return Examination(
        outcomes=outcomes,
        lines=lines,
        kept=[row for row in frame["row"] if row not in gone],
        classes={str(label): {s: int(n) for s, n in row.items()} for label, row in counts.items()},
        overview=overview(frame),
    )


def _on(rules: Sequence[Rule], table: CheckedTable) -> list[Rule]:
    return [rule for rule in rules if rule.table is table]


def set_aside(frame: pd.DataFrame, outcomes: Sequence[ExpectationResult]) -> list[CheckResult]:
    """List the rows that break a quarantine rule, in the order of the table."""
    place = {row: index for index, row in enumerate(frame["row"])}
    broken = [
        (place[row], outcome.rule)
        for outcome in outcomes
        if outcome.rule.failing is Failing.QUARANTINE
        for row in outcome.bad
    ]
    return [
        CheckResult(frame["row"].iloc[at], rule.name, explain(rule, frame, at))
        for at, rule in sorted(broken, key=lambda one: (one[0], one[1].name))
    ]


def explain(rule: Rule, frame: pd.DataFrame, at: int) -> str:
    """Fill a rule's reason from the row at position `at`."""
    return rule.reason.format_map(frame.iloc[at].to_dict())


MISLABELLED = ("label_text", "label_known")  # a row of theirs counts for no class


def refuse_above(most: float, lines: Sequence[CheckResult], rows: int) -> None:
    """Stop when too many rows are set aside.

    Raises DataError with the counts of each rule and the first rows.
    """
    first: dict[str, str] = {}
    for line in lines:
        first.setdefault(line.row, f"'{line.row}' ({line.reason})")
    if len(first) <= most * rows:
        return
    counts = Counter(line.rule for line in lines)
    more = f" and {len(first) - EXAMPLES} more" if len(first) > EXAMPLES else ""
    raise DataError(
        f"{len(first)} of {rows} images would go to quarantine ({len(first) / rows:.1%})",
        got=", ".join(f"{rule} {n}" for rule, n in counts.most_common())
        + f"; first: {', '.join(list(first.values())[:EXAMPLES])}{more}",
        rule=f"validate.quarantine_max_fraction allows {most:.1%}",
        fix="mend or delete these files, or raise validate.quarantine_max_fraction in params.yaml",
    )


def refuse(
    outcomes: Sequence[ExpectationResult],
    frame: pd.DataFrame,
    key: str,
    *,
    aside: Sequence[CheckResult] = (),
) -> None:
    """Stop when a rule is broken that says so.

    Raises DataError naming what broke each of them, and why rows were set `aside` before that.
    """
    failed = [o for o in outcomes if not o.passed and o.rule.failing is Failing.REFUSE]
    if not failed:
        return
    place = {name: index for index, name in enumerate(frame[key])}
    texts = []
    for outcome in failed:
        reasons = [
            (f"'{name}': " if key == "row" else "") + explain(outcome.rule, frame, place[name])
            for name in outcome.bad[:EXAMPLES]
        ]
        more = f" and {len(outcome.bad) - EXAMPLES} more" if len(outcome.bad) > EXAMPLES else ""
        texts.append(f"{', '.join(reasons) + more or outcome.observed}, where {outcome.rule.says}")
    counts = Counter(line.rule for line in aside if line.rule not in MISLABELLED)
    if counts:
        gone = ", ".join(f"{rule} {n}" for rule, n in counts.most_common())
        texts.append(f"images set aside before that: {gone}")
    raise DataError("validation refuses the data", got="; ".join(texts), fix=failed[0].rule.fix)


def class_frame(
    frame: pd.DataFrame, lines: Sequence[CheckResult], expected: Sequence[str] | None
) -> pd.DataFrame:
    """Count what is left: label, train, validation, test, images, times_smallest.

    A class whose images are all set aside stays with 0; one that exists only by a bad label
    (a rule of its text or of the set asked for) is no class.
    """
    import pandas as pd

    mislabelled = {line.row for line in lines if line.rule in MISLABELLED}
    gone = {line.row for line in lines}
    named = frame[frame["label"].notna() & ~frame["row"].isin(mislabelled)]
    labels = sorted({*named["label"], *(expected or ())})
    left = named[~named["row"].isin(gone)]
    counts = pd.crosstab(left["label"], left["split"])
    counts = counts.reindex(index=labels, columns=list(SPLITS), fill_value=0)
    table = pd.DataFrame({split: counts[split].to_numpy() for split in SPLITS})
    table.insert(0, "label", labels)
    table["images"] = table[list(SPLITS)].sum(axis=1)
    table["times_smallest"] = table["images"] / max(1, table["images"].min())
    return table


def overview(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count the images by format, mode and size (width x height, the most common first)."""
    readable = frame[frame["error"].isna()]
    sizes = (
        readable["width"].astype(int).astype(str)
        + " x "
        + readable["height"].astype(int).astype(str)
    )
    columns = {"format": readable["format"], "mode": readable["mode"], "size": sizes}
    return {
        name: dict(sorted(Counter(column).items(), key=lambda one: (-one[1], one[0])))
        for name, column in columns.items()
    }
