"""State what every stage file offers: READS, SECTIONS, and `run(params, inputs, out, recorder)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol

from fettle.errors import OurFault
from fettle.manifest import Facts_co, FactsModel
from fettle.measure import Measure
from fettle.params import Params
from fettle.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a stage may read.

    `folders` maps an upstream stage to its verified artefact folder; a matrix stage appears once
    a target, as "evaluate@x86_ort_fp32". `project` is the folder of params.yaml (for
    `inputs/*.json` and for the user's own data and code). `scratch` survives a kill and is keyed
    by the digest of the stage's inputs: checkpoints live there, never in `out`, which DVC empties
    before a run.
    """

    folders: Mapping[str, Path]
    project: Path
    scratch: Path
    target: str | None = None

    def __getitem__(self, stage: str) -> Path:
        """Return the artefact folder of an upstream stage."""
        if stage not in self.folders:
            raise OurFault(f"a stage asked for '{stage}', its READS name {sorted(self.folders)}")
        return self.folders[stage]

    def matrix(self, stage: str) -> dict[str, Path]:
        """Return {target: folder} of an upstream matrix stage, in params.yaml's order."""
        found = [(k.partition("@"), v) for k, v in self.folders.items()]
        return {target: path for (name, at, target), path in found if at and name == stage}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs(Generic[Facts_co]):
    """What goes into the manifest beside the files a stage wrote under `out`."""

    facts: Facts_co  # the stage's own model, of fettle/facts
    measures: Mapping[str, Measure] = field(default_factory=dict)


class Stage(Protocol):
    """The shape of a stage file."""

    READS: tuple[str, ...]  # upstream stages; "export@" is this target's own, "export@*" all
    SECTIONS: tuple[str, ...]  # parts of params.yaml it may see (dotted); dvc.yaml lists the same
    MEASURES: bool  # it takes latencies, so it runs alone on the machine
    # PER_TARGET = True where it runs once a target; CARRIES_SOURCES = True where its artefact holds
    # the text of our code (fettle/staleness/code_digest.py reads both)

    def run(
        self, params: Params, inputs: Inputs, out: Path, recorder: Recorder
    ) -> Outputs[FactsModel]:
        """Make the artefact: write only under `out`, read only `inputs` and `params`."""
