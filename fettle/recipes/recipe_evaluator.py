"""Lend the search real models: what a move costs, and what came of a recipe.

A move is what a technique proposes for the model as it stands; before any training it is tried on a
copy, so that its cost is counted, not guessed, and the drop of the copy on training images is what
the surrogate reads. A trial recovers for search.trial_epochs, a finalist for search.final_epochs
more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from fettle import plugins
from fettle.compress import layer_costs, sensitivity_analysis
from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.technique import Capabilities, CompressionContext
from fettle.data import split_reader
from fettle.errors import ModelError
from fettle.evaluation import accuracy_statistics, passing_probability
from fettle.params_schema import Options
from fettle.recipes import recipe_runner
from fettle.recipes.cost_model import CostModel, latency_from_macs_ms
from fettle.recipes.recipe_runner import ModelState
from fettle.recipes.recovery_training import (
    CompressionJob,
    example_input,
    load_teacher,
    skip_training,
    training_batches,
)
from fettle.recipes.search.trial import Move, Recipe, Result, key
from fettle.training import inference

RECOVERY = "distil"  # what a finalist is finished with
# A technique's mildest, middle and harshest proposal: the surrogate reads between them.
PROPOSALS_MAX = 3
# What an epoch costs beside the model's own work, in epochs of the float model: images and teacher.
# On digits, one thread: 0.3 s for a student of width 8, 4.7 s for the float model.
EPOCH_COST_MIN = 0.06
PROBE_IMAGES = 256  # of the training set, for the untrained copy; half a point at most either way


class RecipeEvaluator:
    """The workbench of fettle/recipes/search/search_loop.py, on real models."""

    def __init__(self, job: CompressionJob, price: CostModel, tested: int) -> None:
        self.job, self.price, self.tested = job, price, tested
        self.root = recipe_runner.float_model_state(job)
        self._teacher = load_teacher(job.weights, self.root.model)
        self._last: tuple[str, ModelState] = (key(()), self.root)
        self._trial = 0

    def moves(self, recipe: Recipe) -> Sequence[Move]:
        """Ask every technique, try each proposal on a copy, and add the recovery."""
        now, found = self._stand(recipe), []
        for step in proposals(self.job, now):
            tried = self._probe(now, step)
            if tried is not None:
                found.append(tried)
        if recipe:
            epochs = self.job.params.compress.search.final_epochs
            final = {"use": RECOVERY, "epochs": epochs}
            value, excess = self.price.of(now.model, now.layers)
            found.append(
                Move(
                    step=final,
                    role="recover",
                    value=value,
                    excess=excess,
                    epochs=epochs,
                    epoch_cost=self._epoch_cost(now.layers),
                )
            )
        return found

    def evaluate(self, recipe: Recipe) -> Result:
        """Make the model of `recipe`, from what scratch keeps of its beginning."""
        parent = self._stand(recipe[:-1])
        spent = replace(parent, model=copy.deepcopy(parent.model))
        steps = [dict(step) for step in recipe]
        job = replace(self.job, recipe=steps, trial=self._trial)
        self._trial += 1
        try:
            now, _ = recipe_runner.run_step(job, spent, len(steps) - 1, teacher=self._teacher)
        except ModelError as err:
            return Result(refused=str(err))
        self._last = (key(recipe), now)
        return self.look(now)

    def chance(self, drop: float) -> float:
        """Foretell test for a drop on validation."""
        asked, seen = self.job.params.compress.budget, len(self.job.validation.labels)
        return passing_probability.probability_for_drop(asked, drop, seen=seen, tested=self.tested)

    def look(self, now: ModelState) -> Result:
        """Hold a model's answers to the validation images against the float model's."""
        asked, labels = self.job.params.compress.budget, self.job.validation.labels
        value, excess = self.price.of(now.model, now.layers)
        found = passing_probability.forecast_passing(
            asked, self.root.logits, now.logits, labels, tested=self.tested
        )
        return Result(
            value=value,
            drop=found.drop,
            chance=found.chance,
            excess=excess,
            figures={
                "params": float(now.size[0]),
                "macs": float(now.size[1]),
                "accuracy": now.accuracy.value,
                "epochs": float(now.epochs),
            },
        )

    def _stand(self, recipe: Recipe) -> ModelState:
        name = key(recipe)
        if not recipe:
            return self.root
        if self._last[0] != name:
            kept, _ = recipe_runner.load_step(self.job, self.job.scratch / name)
            self._last = (name, kept)
        return self._last[1]

    def _epoch_cost(self, layers: Sequence[layer_costs.LayerCost]) -> float:
        """Return what an epoch of a model costs, in epochs of the float model: counted, so that the
        search takes the same way everywhere.
        """
        return max(
            EPOCH_COST_MIN, latency_from_macs_ms(layers) / latency_from_macs_ms(self.root.layers)
        )

    def _probe(self, now: ModelState, step: Options) -> Move | None:
        """Try `step` on an untrained copy; None if it cannot be."""
        spent = copy.deepcopy(now.model)
        spent.requires_grad_(True)
        plugin = plugins.resolve("techniques", step["use"], where="compress.recipe")
        options = {name: value for name, value in step.items() if name != "use"}
        workshop = replace(lent(self.job, now), fit=skip_training)
        try:
            outcome = plugin.apply(spent, now.plan, recipe_runner.parse(plugin, options), workshop)
            model = (outcome.model or spent).eval()
            layers = layer_costs.count_layers(model, example_input(self.job))
            value, excess = self.price.of(model, layers)
        except ModelError:
            return None
        return Move(
            step=step,
            role="shrink",
            value=value,
            probe=self._probe_drop(model),
            excess=excess,
            epochs=training_epochs(step),
            epoch_cost=self._epoch_cost(layers),
        )

    def _probe_drop(self, model: torch.nn.Module) -> float:
        train, normalise = self.job.train, split_reader.preprocess(self.job.params).normalise
        pixels, labels = train.pixels[:PROBE_IMAGES], train.labels[:PROBE_IMAGES]
        before, after = (
            accuracy_statistics.accuracy(inference.logits(one, pixels, normalise), labels).value
            for one in (self.root.model, model)
        )
        return before - after


def lent(job: CompressionJob, now: ModelState) -> CompressionContext:
    """Lend a probe a workshop with few images; the caller sets how it trains."""
    few = replace(
        job.train, pixels=job.train.pixels[:PROBE_IMAGES], labels=job.train.labels[:PROBE_IMAGES]
    )
    small = replace(job, train=few)

    def some() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return training_batches(small)

    return CompressionContext(
        example=example_input(job),
        protected=recipe_runner.protected(job, now),
        channel_multiple=recipe_runner.channel_multiple(job.params.targets),
        seed=job.params.seed,
        batches=some,
        fit=skip_training,
        build=lambda name, options: recipe_runner.build(job, name, options),
    )


def proposals(job: CompressionJob, now: ModelState) -> list[Options]:
    """List whole steps that techniques propose for the model; a step that recovers does so for
    search.trial_epochs. A technique that shrinks nothing of the module is not asked.
    """
    # the tracer follows gradients, which the teacher has none of
    model = copy.deepcopy(now.model).requires_grad_(True)
    untouched = now.plan == CompressionPlan()
    survey = sensitivity_analysis.measure_sensitivity(
        model, lent(job, now), shares=(), as_built=untouched
    )
    multiple = recipe_runner.channel_multiple(job.params.targets)
    found: list[Options] = []
    for name in plugins.names("techniques"):
        plugin = plugins.resolve("techniques", name, where="compress.recipe")
        propose: Callable[..., list[Options]] | None = getattr(plugin, "proposals", None)
        claims: Capabilities = plugin.CLAIMS
        if propose is None or not (claims.shrinks_parameters or claims.shrinks_macs):
            continue
        offered = propose(survey, multiple=multiple, seed=job.params.seed)
        for options in evenly_spaced(offered, PROPOSALS_MAX):
            step = {"use": name, **options}
            if "recover_epochs" in plugin.Params.model_fields:
                step["recover_epochs"] = job.params.compress.search.trial_epochs
            found.append(step)
    return found


def training_epochs(step: Options) -> int:
    """Count the epochs that a step trains for, its technique's default where it does not say."""
    plugin = plugins.resolve("techniques", step["use"], where="compress.recipe")
    options = recipe_runner.parse(
        plugin, {name: one for name, one in step.items() if name != "use"}
    )
    own = options.model_dump()
    return int(own.get("recover_epochs", own.get("epochs", 0)))


def evenly_spaced(offered: Sequence[Options], most: int) -> list[Options]:
    """Take at most `most` of the proposals, mild to harsh, the first and the last among them."""
    if len(offered) <= most:
        return list(offered)
    last = len(offered) - 1
    return [offered[round(at * last / (most - 1))] for at in range(most)]
