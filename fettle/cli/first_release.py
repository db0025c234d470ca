"""`fettle run --first`: serve the linear probe before anything is trained, and say what comes next.

A run in a workspace of its own: the head is fitted on the frozen features, nothing is searched for,
the faster of fp32 and int8 ships. The whole run afterwards restores what both share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fettle.params import Params
    from fettle.project import Project

OVERRIDES = (
    "finetune.epochs_max=0",
    "finetune.linear_probe=true",
    "finetune.choice_fraction=0.1",
    "compress.recipe=[]",
    "compress.objective.target=null",
    "targets=[x86_ort_fp32, x86_ort_int8]",
)


def outlook(place: Project, whole: Params) -> str:
    """Say what the whole run is expected to cost and to buy, by the committed cost table."""
    from pathlib import Path

    from fettle import manifest, plugins
    from fettle.facts.finetune_facts import FinetuneFacts
    from fettle.facts.ingest_facts import IngestFacts
    from fettle.models import input_size

    artifacts = place.tree / "artifacts"
    probe = manifest.read(artifacts / "finetune", FinetuneFacts, verify=False)
    counts = manifest.read(artifacts / "ingest", IngestFacts, verify=False).facts.classes
    images = sum(count["train"] for count in counts.values())
    family = plugins.resolve("families", probe.facts.family, where="finetune.family")
    options = family.Params.model_validate(whole.finetune.options, strict=False)
    table = input_size.CostTable.model_validate_json(input_size.COSTS.read_text())
    cost = input_size.relative_cost(
        probe.facts.size_px, family.input_record(options, Path()), table
    )
    epochs = whole.finetune.epochs_max
    minutes = images * epochs * cost * table.training.seconds / 60
    right = probe.measures["accuracy"]
    return (
        f"next     fettle run: {epochs} epochs of {images:,} images at {probe.facts.size_px} px, "
        f"about {minutes:.0f} processor minutes by the committed cost table, then the search, "
        f"{whole.compress.search.wall_clock_max_s:.0f} s at most. The linear probe has "
        f"{right.value:.1%} of validation; on {table.training.seen} fine-tuning gained "
        f"{table.training.gain_points:g} points over it"
    )
