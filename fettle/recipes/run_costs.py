"""Run costs: what each stage of a run will take, by a committed table and this machine's pace.

The table was fitted to one machine; `pace` is how many times its seconds a training step takes
here (fettle/recipes/training_probe.py), and everything else is taken to go as fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from fettle.models import input_size
from fettle.params import Params

COSTS = Path(__file__).with_name("run_costs.json")
MIB = 2**20
# A recovery step also asks the teacher, whose pass is a third of a step's (forward and twice back).
RECOVERY_STEP = 4 / 3
FORWARD = 1 / 3
RATE_TRIALS, RATE_STEPS_MAX = 3, 120  # fettle/training/learning_rate_search.py
SEARCH_SHARE = 0.5  # of its evaluations and of its final training: most searches settle earlier


class RunCosts(BaseModel):
    """run_costs.json, by its own names; `_s` are seconds, `_mib` MiB."""

    about: str
    start_s: float
    process_s: float
    ingest_image_s: float
    validate_s: float
    validate_image_s: float
    table_target_s: float
    table_target_cost_s: float
    trial_s: float
    trial_cost_s: float
    export_target_s: float
    export_target_cost_s: float
    evaluate_target_s: float
    evaluate_target_cost_s: float
    close_s: float
    training_memory_mib: float
    training_image_memory_mib: float
    teacher_memory_mib: float
    memory_mib: Mapping[str, float]
    disk_mib: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunSize:
    """How large a run is: images of its splits, an image's cost, pace of this machine.

    `cost` is 1 for efficientnet_lite 0 at 128 px; `image_s` what training an image of cost 1 takes
    at pace 1; `trains` is False for a finished ONNX file; `side_px` is of the model's input.
    """

    images: int
    train: int
    validation: int
    cost: float
    pace: float
    image_s: float
    trains: bool = True
    side_px: int | None = None

    @property
    def train_image_s(self) -> float:
        """Seconds of training on one image here."""
        return self.image_s * self.cost * self.pace


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage will take; memory is its process' peak."""

    seconds: float
    memory_bytes: int
    disk_bytes: int


def table() -> RunCosts:
    """Read the committed table."""
    return RunCosts.model_validate_json(COSTS.read_text())


def image_s() -> float:
    """Seconds that training an image of cost 1 takes on the table's machine."""
    return input_size.CostTable.model_validate_json(input_size.COSTS.read_text()).training.seconds


def epoch_images(params: Params, size: RunSize) -> int:
    """Training images of an epoch of fine-tuning."""
    learnt = round(size.train * (1 - params.finetune.choice_fraction))
    steps = params.finetune.epoch_steps_max
    return min(learnt, steps * params.finetune.batch_images) if steps else learnt


def finetune_s(params: Params, size: RunSize) -> float:
    """Seconds of fine-tuning: the probe's pass, trials of rates, epochs and their judging."""
    if not size.trains:
        return 2.0
    section, one = params.finetune, size.train_image_s
    learnt = epoch_images(params, size)
    judged = size.train - round(size.train * (1 - section.choice_fraction)) or size.validation
    seconds = section.epochs_max * (learnt + FORWARD * judged) * one
    if section.linear_probe:
        seconds += FORWARD * size.train * one
    if section.learning_rate == "auto" and section.epochs_max:
        steps = min(RATE_STEPS_MAX, section.epochs_max * learnt / section.batch_images / 12)
        seconds += RATE_TRIALS * max(24, steps) * section.batch_images * one
    return seconds + FORWARD * size.validation * one + 5 * size.pace


def recovery_epoch_s(params: Params, size: RunSize) -> float:
    """Seconds of an epoch of recovery of the float model."""
    cut = params.compress.search.trial_steps_max * params.finetune.batch_images
    images = min(size.train, cut) * RECOVERY_STEP + FORWARD * size.validation
    return images * size.train_image_s


def trial_s(params: Params, size: RunSize, costs: RunCosts) -> float:
    """Seconds of a short trial: its proposals, its cut, its recovery, its judging."""
    beside = (costs.trial_s + costs.trial_cost_s * size.cost) * size.pace
    return beside + params.compress.search.trial_epochs * recovery_epoch_s(params, size)


def compress_s(params: Params, size: RunSize, costs: RunCosts) -> float:
    """Seconds of the search, its clock at most; of a given recipe, those of its epochs."""
    closing = FORWARD * 4 * size.validation * size.train_image_s + 5 * size.pace
    if not size.trains:
        return closing
    recipe, search = params.compress.recipe, params.compress.search
    each = recovery_epoch_s(params, size)
    if recipe != "auto":
        epochs = sum(int(str(s.get("epochs", s.get("recover_epochs", 0)))) for s in recipe)
        return closing + epochs * each
    asked = search.evaluations_max * trial_s(params, size, costs) + search.final_epochs * each
    return min(search.wall_clock_max_s, SEARCH_SHARE * asked + closing)


def stages(params: Params, size: RunSize) -> dict[str, StageCost]:
    """Cost of each stage by its name; of `export` and `evaluate` for one target."""
    costs = table()
    pace, cost = size.pace, size.cost
    searched = size.trains and params.compress.recipe == "auto"
    tabled = 1 if params.compress.objective.target else len(params.targets)
    seconds = {
        "inputs": 0.5,
        "ingest": size.images * costs.ingest_image_s * pace,
        "validate": (costs.validate_s + size.images * costs.validate_image_s) * pace,
        "finetune": finetune_s(params, size),
        "latency_table": tabled * (costs.table_target_s + costs.table_target_cost_s * cost) * pace
        if searched
        else 0.0,
        "compress": compress_s(params, size, costs),
        "export": (costs.export_target_s + costs.export_target_cost_s * cost) * pace,
        "evaluate": (costs.evaluate_target_s + costs.evaluate_target_cost_s * cost) * pace,
        "select": 0.1,
        "verdict": 2 * pace,
        "package": 2 * pace,
    }
    batch = params.finetune.batch_images * costs.training_image_memory_mib * cost
    training = costs.training_memory_mib + batch if size.trains else costs.memory_mib["evaluate"]
    memory = {
        **costs.memory_mib,
        "finetune": training,
        "compress": training + (costs.teacher_memory_mib if searched else 0),
    }
    return {
        name: StageCost(
            seconds=value + costs.process_s * pace,
            memory_bytes=round(memory[name] * MIB),
            disk_bytes=round(costs.disk_mib[name] * MIB),
        )
        for name, value in seconds.items()
    }


def fixed_s(params: Params, size: RunSize) -> float:
    """Seconds of all that a budget cannot change: everything but fine-tuning and compression."""
    costs, found = table(), stages(params, size)
    once = sum(
        entry.seconds
        for name, entry in found.items()
        if name not in ("finetune", "compress", "export", "evaluate")
    )
    each = found["export"].seconds + found["evaluate"].seconds
    return costs.start_s + costs.close_s + once + each * len(params.targets)
