"""Model card of a release: what it is, what it was tested on, and what it cannot do.

Markdown without a clock or a machine's name in it: equal facts give equal bytes. Every number
stands beside its n and its split; what nobody measured is said to be "not measured".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fettle.manifest import SHORT
from fettle.measure import Measure
from fettle.params_schema import METRICS
from fettle.report import number_format

NOT_STATED = "not stated; a file LICENSE beside it, or verdict.licences.{}, states it"
CLASSES_LISTED_MAX = 40  # beyond it the table of classes hides the rest of the card
SPLITS = ("train", "validation", "test")
RATIOS = {
    "params_ratio": "parameters, times fewer",
    "macs_ratio": "multiply-accumulates, times fewer",
    "size_ratio": "file size, times smaller",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One target as `evaluate` measured it, on validation images."""

    target: str
    verdict: str
    reason: str | None
    size_bytes: int | None
    measures: Mapping[str, Measure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The facts of a card; `measures` are the verdict's, on test images."""

    name: str
    target: str
    why: str
    family: str
    passed: bool
    reasons: Sequence[str]
    size_px: int
    channels: int
    output: str
    source: str
    data_digest: str
    counts: Mapping[str, Mapping[str, int]]  # {class: {split: images}}
    quarantined: int
    measures: Mapping[str, Measure]
    rows: Sequence[Row]
    licences: Mapping[str, str | None]  # {"model": …, "data": …}


def text(card: Card) -> str:
    """Return the card as Markdown."""
    parts = [_head(card), _use(card), _data(card), _quality(card), _compression(card)]
    return "\n".join([*parts, _targets(card), _limits(card), _licences(card)])


def _head(card: Card) -> str:
    gate = "passed" if card.passed else "did **not** pass"
    reasons = "".join(f"\n- {_plain(reason)}" for reason in card.reasons)
    return f"""# {_plain(card.name)}

An image classifier of {len(card.counts)} classes, family `{card.family}`, for the target
`{card.target}`. The release gate {gate}.{reasons}

Chosen because: {_plain(card.why)}
"""


def _use(card: Card) -> str:
    colour = "grey" if card.channels == 1 else "RGB"
    return f"""## Use

Input: any image; it is turned upright, made {colour}, resized to {card.size_px} x {card.size_px}
pixels and normalised, by the same code as in training (`preprocess.json`).
Output: {card.output}; classes are in `labels.json`.
"""


def _data(card: Card) -> str:
    totals = {s: sum(count.get(s, 0) for count in card.counts.values()) for s in SPLITS}
    rows = [
        [_plain(name), *(number_format.count(one.get(s, 0)) for s in SPLITS)]
        for name, one in _classes(card)
    ]
    rows.append(["**all**", *(number_format.count(totals[s]) for s in SPLITS)])
    left_out = len(card.counts) - CLASSES_LISTED_MAX
    more = f"\n{left_out} more classes are in `labels.json`.\n" if left_out > 0 else ""
    aside = number_format.count(card.quarantined)
    return f"""## Data

Source `{_plain(card.source)}`, content digest `{card.data_digest[:SHORT]}`. Images as ingested;
data validation then put {aside} aside, in whichever split they were.

{_table(["class", *SPLITS], rows)}{more}"""


def _classes(card: Card) -> list[tuple[str, Mapping[str, int]]]:
    return list(card.counts.items())[:CLASSES_LISTED_MAX]


def _quality(card: Card) -> str:
    rows = []
    for name in METRICS:
        ours, float_ = card.measures.get(name), card.measures.get(f"float_{name}")
        drop = card.measures.get(f"{name}_drop")
        n = str(ours.n) if ours else number_format.DASH
        rows.append(
            [name, _percent(float_), _percent(ours), number_format.points_interval(drop), n]
        )
    head = ["metric", "float model, %", "this release, %", "drop, points", "n"]
    return f"""## Quality on the test split

The file of this release, run by its own runtime, and the float model it was made from, on the same
test images; 95 % intervals in brackets, the drop's interval is paired. n counts images
(of the worst class, for worst_recall).

{_table(head, rows)}"""


def _compression(card: Card) -> str:
    rows = [
        [label, number_format.times(card.measures.get(name)), str(card.measures[name].n)]
        for name, label in RATIOS.items()
        if name in card.measures
    ]
    if not rows:
        return f"## Compression\n\n{number_format.NOT_MEASURED.capitalize()}.\n"
    return f"""## Compression

This release against the float model; n counts files compared.

{_table(["what", "ratio", "n"], rows)}"""


def _targets(card: Card) -> str:
    rows = []
    for row in card.rows:
        latency = row.measures.get("latency_p50_ms")
        accuracy, speedup = row.measures.get("accuracy"), row.measures.get("speedup")
        rows.append(
            [
                f"**{row.target}**" if row.target == card.target else row.target,
                row.verdict if not row.reason else f"{row.verdict}: {_plain(row.reason)}",
                _with_n(_percent(accuracy), accuracy),
                _with_n(
                    number_format.milliseconds(latency.value) if latency else number_format.DASH,
                    latency,
                ),
                _with_n(number_format.times_interval(speedup), speedup),
                number_format.size(row.size_bytes)
                if row.size_bytes is not None
                else number_format.DASH,
            ]
        )
    head = ["target", "verdict", "accuracy, %", "p50, ms", "speed-up", "size"]
    return f"""## Targets, on the validation split

Latency is of one image on the machine that built the release; it does not carry over to another.
The speed-up is against the float model in ONNX Runtime, measured in turns with it.

{_table(head, rows)}"""


def _limits(card: Card) -> str:
    return f"""## Limits

- It always names one of its {len(card.counts)} classes, also for an image that shows none of them.
- Its figures hold for images like those of the source above; nothing was measured on others.
- Probabilities are as calibrated as `calibration_error` above says, on the test split only.
- Fairness across groups of people, and resistance to hostile input: {number_format.NOT_MEASURED}.
"""


def _licences(card: Card) -> str:
    stated = {
        name: licence or NOT_STATED.format(name) for name, licence in sorted(card.licences.items())
    }
    lines = "".join(f"- {name}: {_plain(licence)}\n" for name, licence in stated.items())
    return f"""## Licences

{lines}- packages: each one's in `sbom.cdx.json`
"""


def _percent(measure: Measure | None) -> str:
    return number_format.percent_interval(measure)


def _with_n(shown: str, measure: Measure | None) -> str:
    return f"{shown} (n = {number_format.count(measure.n)})" if measure else shown


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _plain(stated: str) -> str:
    """Keep names and reasons from being read as Markdown or HTML."""
    for sign in ("\\", "|", "*", "`", "[", "<"):
        stated = stated.replace(sign, "\\" + sign)
    return stated.replace("\n", " ")
