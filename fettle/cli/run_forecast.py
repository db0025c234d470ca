"""Forecast of a stage: time, memory and disk from this machine's own past, else from the table.

A stage that ran here before is taken at its last time, scaled by what the table says of the params
and images of then and now. One that never ran is the table's, at the pace that a probe measured.
"""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from fettle import project as projects
from fettle.cli import run_sizing
from fettle.params import Params
from fettle.project import Project
from fettle.recipes import run_costs
from fettle.recipes.run_costs import RunSize, StageCost
from fettle.report.run_records import StageRecord

Basis = Literal["measured", "scaled", "estimated"]
SAME = 0.02  # a ratio this near to 1 is no change of size


@dataclass(frozen=True, slots=True)
class StageForecast:
    """What a stage will take, and where the figures are from."""

    seconds: float
    memory_bytes: int
    disk_bytes: int
    basis: Basis


class RunForecast:
    """Forecasts of one run: the records are read, and the machine probed, when first needed."""

    def __init__(self, place: Project, settings: Params) -> None:
        self._place, self._settings = place, settings

    def stage(self, address: str) -> StageForecast:
        """Forecast one stage of the graph, "export@TARGET" for one of a target."""
        name = address.partition("@")[0]
        record = self._records.get(address)
        if record is None:
            cost = self._probed[name]
            return StageForecast(cost.seconds, cost.memory_bytes, cost.disk_bytes, "estimated")
        now, then = self._unprobed[name], self._then(name, record)
        ratio = now.seconds / then.seconds
        return StageForecast(
            seconds=record.seconds * ratio + run_costs.table().process_s,
            memory_bytes=record.peak_memory_bytes or now.memory_bytes,
            disk_bytes=now.disk_bytes if record.disk_bytes is None else record.disk_bytes,
            basis="measured" if abs(ratio - 1) < SAME else "scaled",
        )

    @property
    def overhead_s(self) -> float:
        """Seconds of a run beside its stages: the servers, the publication."""
        costs = run_costs.table()
        return costs.start_s + costs.close_s

    @cached_property
    def _size(self) -> RunSize:
        return run_sizing.size_of(self._place, self._settings, probe=False)

    @cached_property
    def _unprobed(self) -> dict[str, StageCost]:
        return run_costs.stages(self._settings, self._size)

    @cached_property
    def _probed(self) -> dict[str, StageCost]:
        return run_costs.stages(self._settings, run_sizing.size_of(self._place, self._settings))

    @cached_property
    def _records(self) -> dict[str, StageRecord]:
        """The last record of each stage on this machine: of this tree, else of the newest."""
        trees = {self._place.root, *projects.trees(self._place)} - {self._place.tree}
        found: dict[str, StageRecord] = {}
        for tree in trees:
            for name, record in _read(tree).items():
                if name not in found or found[name].started < record.started:
                    found[name] = record
        return found | _read(self._place.tree)

    def _then(self, name: str, record: StageRecord) -> StageCost:
        """Cost of the stage as it ran then, by the table."""
        settings = _with_sections(self._settings, record.asked)
        size, images = self._size, record.images
        if images and size.images:
            share = images / size.images
            size = replace(
                size,
                images=images,
                train=round(size.train * share),
                validation=round(size.validation * share),
            )
        side = settings.preprocess.size_px
        if side != "auto" and size.side_px:
            size = replace(size, cost=size.cost * (side / size.side_px) ** 2)
        return run_costs.stages(settings, size)[name]


def _read(tree: Path) -> dict[str, StageRecord]:
    found: dict[str, StageRecord] = {}
    for path in (tree / "records").glob("*.json"):
        if path.name.endswith(".error.json"):
            continue
        doc = json.loads(path.read_text())
        if doc.get("host") == platform.node():
            found[path.stem] = StageRecord.from_json(doc, path)
    return found


def _with_sections(settings: Params, asked: Mapping[str, object]) -> Params:
    """Lay recorded sections over the params; those of another version leave them as they are."""
    doc = copy.deepcopy(settings.model_dump(mode="json", by_alias=True))
    for section, value in asked.items():
        node = doc
        *parents, last = section.split(".")
        for part in parents:
            node = node.get(part, {})
        node[last] = value
    try:
        return type(settings).model_validate_json(json.dumps(doc))
    except ValueError:
        return settings
