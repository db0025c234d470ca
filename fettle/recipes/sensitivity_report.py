"""Sensitivity report, sensitivity.json: how each block and group of the float model counts.

Measured once, of the model as it was fine-tuned, whatever the recipe: the report draws it, and a
person reads from it what a recipe of his own may take.
"""

from __future__ import annotations

from pathlib import Path

from fettle.compress import sensitivity_analysis
from fettle.recipes.compression_context import compression_context
from fettle.recipes.recipe_runner import ModelState
from fettle.recipes.recovery_training import CompressionJob


def write(job: CompressionJob, before: ModelState, out: Path) -> None:
    """Sensitivity of the float model, measured and written; see SensitivityDocument."""
    context = compression_context(job, before.model, before.plan)
    sensitivity = sensitivity_analysis.measure_sensitivity(before.model, context)
    sensitivity_analysis.document(sensitivity).write(out / "sensitivity.json")
