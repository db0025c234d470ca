"""Sensitivity report, sensitivity.json: how each block and group of the float model counts.

Measured once, of the model as it was fine-tuned, whatever the recipe: the report draws it, and a
person reads from it what a recipe of his own may take.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from fettle.compress import sensitivity_analysis
from fettle.compress.compression_plan import CompressionPlan
from fettle.recipes.compression_context import compression_context
from fettle.recipes.recipe_runner import planned_network
from fettle.recipes.recovery_training import CompressionJob


def write(job: CompressionJob, out: Path) -> None:
    """Sensitivity of the float model, measured and written; see SensitivityDocument."""
    plan = CompressionPlan()
    model = planned_network(job, plan, load_file(job.weights))
    context = compression_context(job, model, plan)
    sensitivity = sensitivity_analysis.measure_sensitivity(model, context)
    sensitivity_analysis.document(sensitivity).write(out / "sensitivity.json")
