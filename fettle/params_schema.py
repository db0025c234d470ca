"""State every section of params.yaml as a frozen, strict model, in the order of the file."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fettle import params_value_rules
from fettle.errors import OurFault
from fettle.params_training import Finetune, PreprocessParams
from fettle.params_types import BATCH_IMAGES_MAX, Auto, number_or_auto

# offered here too: plug-ins ask the schema for them (the aliases mark a re-export)
from fettle.params_types import Fraction as Fraction
from fettle.params_types import Options as Options
from fettle.params_types import Positive as Positive
from fettle.params_types import Strict as Strict

Large = Annotated[int, Field(ge=1, lt=2**63)]
# Beyond these a machine is not slow but out of memory or threads, after the training.
Threads = Annotated[int, Field(ge=1, le=1024)]
ROUNDS_MAX = 1_000_000
Metric = Literal["accuracy", "macro_f1", "worst_recall", "calibration_error"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Stated = Annotated[str, Field(pattern=r"\S")]  # a licence: not blank
SCHEMA = 2  # of params.yaml; fettle/params_migration.py knows what each number renamed


class Fold(Strict):
    """The test set is the fold of this `number` (from 1) out of `of` that cover all rows."""

    number: Positive
    of: Annotated[int, Field(ge=2, le=20)]

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.number > self.of:
            raise ValueError(f"there is no fold {self.number} of {self.of}")
        return self


class SplitParams(Strict):
    """Shares of the rows; deterministic, stratified by label, whole groups stay together.

    With `fold` the test set is that fold, and `train` and `validation` share the other rows
    (`fettle crossfit` sets it).
    """

    train: Fraction
    validation: Fraction
    test: Fraction
    fold: Fold | None = None

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, they are {total:g}")
        if min(self.train, self.validation, self.test) <= 0:
            raise ValueError("each of train, validation and test needs a share above 0")
        return self


class Ingest(Strict):
    """Where the data comes from: `source` is a file in fettle/data/sources.

    `limit` makes a smoke run on so many images of every class and split: no release of it ships.
    """

    source: str
    options: Options = {}
    split: SplitParams
    limit: Positive | None = None


class Validate(Strict):
    """Limits of the data checks; a row that breaks a rule is quarantined, not fatal.

    `class_imbalance_max` and `labels` are no limit when null.
    """

    quarantine_max_fraction: Fraction
    class_images_min: Positive
    class_imbalance_max: Annotated[float, Field(ge=1)] | None
    size_px_min: Positive
    size_px_max: Positive
    null_max_fraction: Fraction
    labels: Annotated[list[str], AfterValidator(params_value_rules.class_names)] | None = None
    data_docs: bool = False

    @model_validator(mode="after")
    def _sizes_leave_room(self) -> Self:
        if self.size_px_min > self.size_px_max:
            raise ValueError(
                f"no image has a side of at least {self.size_px_min} px (size_px_min) and at most "
                f"{self.size_px_max} px (size_px_max)"
            )
        return self


class Objective(Strict):
    """What the search and `select` minimise; `target` names one, or null for the best of all."""

    minimise: Literal["latency_p50_ms", "size_bytes", "macs", "energy_j"]
    target: str | None = None

    def recorded(self) -> dict[str, str | None]:
        """Return the form in search.json, choice.json and the report, which keeps its name `on`."""
        return {"minimise": self.minimise, "on": self.target}


class Budget(Strict):
    """How much of a metric all steps together may cost, against the float model, same images.

    The one-sided upper bound of the drop on test, at `confidence`, must lie within `drop_max`;
    `auto` is the least that the test images can decide (`by_images` of them, never set by hand).
    """

    metric: Metric
    drop_max: Annotated[float | Auto, number_or_auto(0, 1)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    by_images: int | Auto | None = None

    @model_validator(mode="before")
    @classmethod
    def _asks_who_chose(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("drop_max") == "auto":
            return {**given, "by_images": "auto"}
        return given

    @model_validator(mode="after")
    def _auto_is_of_accuracy(self) -> Self:
        if self.drop_max == "auto" and self.metric != "accuracy":
            raise ValueError(f"drop_max: auto is for accuracy alone, not for {self.metric}")
        return self

    @property
    def drop_share(self) -> float:
        """The decided bound; a stage never sees auto."""
        if self.drop_max == "auto":
            raise OurFault("compress.budget.drop_max was asked for before it was decided")
        return self.drop_max

    def recorded(self) -> dict[str, object]:
        """Return the form in search.json, choice.json and the verdict."""
        return self.model_dump(exclude_none=True)


class Constraints(Strict):
    """Hard limits beside the objective, each on the file that ships; null is no limit."""

    size_bytes_max: Large | None = None
    latency_p50_ms_max: Annotated[float, Field(gt=0)] | None = None
    params_max: Large | None = None
    macs_max: Large | None = None


class Search(Strict):
    """How far `recipe: auto` looks. Evaluations and training steps bound it: `steps_max` all
    trials, in steps of the float model (a smaller model's count as the share that they cost), and
    `trial_steps_max` each training, whose epochs are cut to fit. The clock is a safety stop: all of
    the search ends within it, the final training too, which gets the epochs that fit, and a result
    that it cut is marked truncated. A trial recovers for
    `trial_epochs`, one that nearly passes for three times as many, a finalist for `final_epochs`.
    `aim` is the objective inside the budget, or the whole front up to some way beyond the budget.
    """

    aim: Literal["objective", "front"] = "objective"
    evaluations_max: Positive = 24
    wall_clock_max_s: Annotated[float, Field(gt=0)] = 900
    trial_epochs: Annotated[int, Field(ge=0, lt=2**31)] = 2
    final_epochs: Positive = 16
    steps_max: Positive = 10_000
    trial_steps_max: Positive = 4_000


class Compress(Strict):
    """`recipe` is a list of techniques (files in fettle/compress), done in this order, or auto:
    the best list found for the objective within the budget.
    """

    recipe: Annotated[
        Literal["auto"] | list[Options], BeforeValidator(params_value_rules.list_or_auto)
    ]
    objective: Objective
    budget: Budget
    constraints: Constraints = Constraints()
    search: Search = Search()


class Export(Strict):
    """How int8 files are made, on training images.

    Layers go back to float until the int8 file differs from the float one in no more than
    `disagreement_max` of its answers; 1 keeps all of them int8. 7 bits a weight are for CPUs
    without VNNI.
    """

    calibration_images: Annotated[int, Field(ge=8, lt=2**31)]
    calibrate: Literal["auto", "minmax", "entropy", "percentile"]
    weight_bits: Literal[7, 8] = 8
    disagreement_max: Fraction = 0.02


class Evaluate(Strict):
    """How a target is measured on validation images.

    The last two are of targets that are not timed here (emulated or estimated): fewer images than
    `accuracy_images_min` ship none of them, unless `drop_max_of_target` states a budget for it,
    {TARGET: largest drop}, that is wider than compress.budget's.
    """

    threads: Threads
    batch_images: Annotated[int, Field(ge=1, le=BATCH_IMAGES_MAX)]
    rounds: Annotated[int, Field(ge=20, le=ROUNDS_MAX)]
    parity_images: Positive
    accuracy_images_min: Positive = 700
    drop_max_of_target: dict[str, Fraction] = {}


class Limit(Strict):
    """A bound that the shipped file must meet on test: `min`, `max`, or both."""

    metric: Metric
    min: Fraction | None = None
    max: Fraction | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"a limit of {self.metric} needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no {self.metric} is at least {self.min:g} and at most {self.max:g}")
        return self


class Licences(Strict):
    """Licences that a release may be made of, SPDX ids; null: any. `data` and `model` state one
    that nobody else does.
    """

    allow: list[Stated] | None = None
    data: Stated | None = None
    model: Stated | None = None


class VerdictParams(Strict):
    """Bounds on the shipped file beside compress.budget."""

    limits: list[Limit] = []
    class_drop_max: Fraction | None = 0.1
    licences: Licences = Licences()


class ReleaseParams(Strict):
    """`name` is the Bento's and the registered model's name, `service` a folder in bentos/."""

    name: Annotated[str, AfterValidator(params_value_rules.bento_name)]
    service: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]


# What the router's variables can name: nginx has no cookie with a hyphen, no header with a _ or
# beyond ASCII. fettle/rollout/router/nginx_config.py holds the routes to the same.
# Host is the service's own name: the same for all users, so all would share one arm.
STICKY_KEY = r"cookie:[A-Za-z0-9_]{1,64}|header:(?![Hh][Oo][Ss][Tt]$)[A-Za-z0-9-]{1,64}"
STICKY_RULE = (
    "cookie:NAME (letters, digits, _) or header:NAME (letters, digits, -; not Host, which is one "
    "for all users)"
)


def _sticky(key: str) -> str:
    if re.fullmatch(STICKY_KEY, key) is None:
        raise ValueError(f"it reads {STICKY_RULE}, NAME at most 64 long: the router takes no other")
    return key


LiveGate = Literal["errors", "latency", "accuracy"]
ShadowGate = Literal["accuracy", "disagreement"]
OnDrift = Literal["hold", "rerun"]


class PromoteStep(Strict):
    """One weight; `margin_multiplier` widens the margins while few requests are at stake."""

    weight_percent: Annotated[float, AfterValidator(params_value_rules.drawn), Field(gt=0, lt=100)]
    margin_multiplier: Annotated[float, Field(ge=1)] = 1.0
    gates: Annotated[list[LiveGate], Field(min_length=1)] = ["errors", "latency"]


class Promote(Strict):
    """How a challenger takes the champion's place; each default's reason is in ADR 0022."""

    shadow_requests: Positive = 2000
    shadow_gates: list[ShadowGate] = ["accuracy", "disagreement"]
    steps: Annotated[list[PromoteStep], Field(min_length=1)] = [
        PromoteStep(weight_percent=1, margin_multiplier=20, gates=["errors"]),
        PromoteStep(weight_percent=5, margin_multiplier=8, gates=["errors"]),
        PromoteStep(weight_percent=25, margin_multiplier=2),
        PromoteStep(weight_percent=50),
    ]
    step_min_s: Annotated[float, Field(ge=0)] = 60.0
    step_budget_requests: Positive = 50_000
    bake_s: Annotated[float, Field(ge=0)] = 600.0
    bake_requests: Positive = 1000
    alpha_rollback: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    alpha_promote: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    errors_margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    accuracy_margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    latency_p95_ratio: Annotated[float, Field(gt=1)] = 1.2
    size_ratio_max: Annotated[float, Field(ge=1)] = 2.0
    disagreement_max: Annotated[float, Field(gt=0, lt=1)] = 0.05
    both_failing_max: Annotated[float, Field(gt=0, le=1)] = 0.2
    drift_tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.1
    sticky_key: Annotated[str, AfterValidator(_sticky)] | None = None
    lease_s: Annotated[float, Field(ge=1)] = 10.0
    on_drift: OnDrift = "hold"

    @model_validator(mode="after")
    def _climbs_to_the_whole_bar(self) -> Self:
        weights = [step.weight_percent for step in self.steps]
        if weights != sorted(set(weights)):
            raise ValueError(f"the weights of the steps must rise, they are {weights}")
        last = self.steps[-1]
        if last.margin_multiplier != 1 or not {"errors", "latency"} <= set(last.gates):
            raise ValueError(
                "the last step must hold errors and latency to the whole bar (margin_multiplier 1)"
            )
        return self


class Params(Strict):
    """The whole of params.yaml, in the order of the file."""

    schema_: Annotated[Literal[2], Field(alias="schema")]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    ingest: Ingest
    validate_: Annotated[Validate, Field(alias="validate")]
    preprocess: PreprocessParams
    finetune: Finetune
    compress: Compress
    export: Export
    targets: Annotated[list[str], Field(min_length=1)]
    evaluate: Evaluate
    verdict: VerdictParams
    release: ReleaseParams
    promote: Promote = Promote()
