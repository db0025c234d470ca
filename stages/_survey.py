"""Write sensitivity.json: what the loss says to each block and group of the float model.

Measured once, of the model as it was fine-tuned, whatever the recipe: the report draws it, and a
person reads from it what a recipe of his own may take.
"""

from __future__ import annotations

from pathlib import Path

from fettle import manifest
from fettle.compress import Workshop, _sensitivity
from stages import _recipe
from stages._recipe import Stand
from stages._recovery import Job, batches, example, untrained


def write(job: Job, before: Stand, out: Path) -> None:
    """Measure the float model and write the document; see _sensitivity.to_json."""
    workshop = Workshop(
        example=example(job),
        protected=_recipe.protected(job, before),
        channel_multiple=_recipe.channel_multiple(job.params.targets),
        seed=job.params.seed,
        batches=lambda: batches(job),
        fit=untrained,
        build=lambda name, options: _recipe.build(job, name, options),
    )
    found = _sensitivity.survey(before.model, workshop)
    manifest.write_json(out / "sensitivity.json", _sensitivity.to_json(found))
