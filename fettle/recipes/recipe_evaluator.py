"""Recipe evaluation for the search, on real models: what a move costs, what came of a recipe.

A move is what a technique proposes for the model as it stands; before any training it is tried on a
copy, so that its cost is counted, not guessed, and the drop of the copy on training images is what
the surrogate reads. A trial recovers for search.trial_epochs, a finalist for search.final_epochs
more.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from fettle import plugins
from fettle.compress import layer_costs, sensitivity_analysis
from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.technique import Capabilities, Proposals
from fettle.data import split_reader
from fettle.errors import ModelError
from fettle.evaluation import accuracy_statistics, passing_probability
from fettle.params_schema import Options
from fettle.recipes import recipe_runner
from fettle.recipes.compression_context import compression_context, parse_options
from fettle.recipes.cost_model import CostModel, latency_from_macs_ms
from fettle.recipes.recipe_runner import ModelState
from fettle.recipes.recovery_training import CompressionJob, example_input, load_teacher
from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.trial import Move, Recipe, Result, SearchTimeoutError, key
from fettle.recipes.trial_watch import HopelessTrialError, TrialWatch
from fettle.training import inference

RECOVERY = "distil"  # what a finalist is finished with
# A technique's mildest, middle and harshest proposal: the surrogate reads between them.
PROPOSALS_MAX = 3
# What an epoch costs beside the model's own work, in epochs of the float model: images and teacher.
# On digits, one thread: 0.3 s for a student of width 8, 4.7 s for the float model.
EPOCH_COST_MIN = 0.06
CLOSING_PASSES = 5  # the float model and three steps, and the export about as long as one
RUNG_FACTOR = 3  # how much longer each recovery is than the last: successive halving's usual pace
PROBE_IMAGES = 256  # of the training set, for the untrained copy; half a point at most either way


class RecipeEvaluator:
    """Trial evaluator of fettle/recipes/search/search_loop.py, on real models."""

    def __init__(
        self,
        job: CompressionJob,
        cost_model: CostModel,
        tested: int,
        clock: SearchClock | None = None,
    ) -> None:
        self.clock = clock or SearchClock()
        self.job = replace(job, watch=TrialWatch(self.clock.out_of_time))
        self.cost_model, self.tested = cost_model, tested
        started = self.clock.elapsed_s
        self.root = recipe_runner.float_model_state(job)
        # after the search the float model and each step of the recipe are made and judged again
        self.clock.reserve_closing(CLOSING_PASSES * (self.clock.elapsed_s - started))
        self._teacher = load_teacher(job.weights, self.root.model)
        self._last: tuple[str, ModelState] = (key(()), self.root)
        self.trials_done = 0  # the search sets it, the journal's trials too

    def moves(self, recipe: Recipe) -> Sequence[Move]:
        """Next moves: every technique's proposals, each tried on a copy, and the recovery."""
        state, moves = self._rebuild(recipe), []
        recovered = bool(recipe) and recipe[-1]["use"] == RECOVERY
        for step in () if recovered else proposals(self.job, state):
            if self.clock.out_of_time():
                raise SearchTimeoutError
            tried = self._probe(state, step)
            if tried is not None:
                moves.append(tried)
        epochs = self._next_rung(recipe)
        if epochs:
            final: Options = {"use": RECOVERY, "epochs": epochs}
            value, excess = self.cost_model.cost(state.model, state.layers)
            moves.append(
                Move(
                    step=final,
                    role="recover",
                    value=value,
                    excess=excess,
                    epochs=epochs,
                    epoch_cost=self._epoch_cost(state.layers),
                )
            )
        return moves

    def evaluate(self, recipe: Recipe) -> Result:
        """Trial of `recipe`: make its model, from what scratch keeps of its steps, and score it."""
        parent = self._rebuild(recipe[:-1])
        spent = replace(parent, model=copy.deepcopy(parent.model))
        steps = [dict(step) for step in recipe]
        watch = TrialWatch(
            self.clock.out_of_time,
            now=self.clock.now,
            search_left_s=self._left_s,
            reference=self.root.accuracy.value,
            chance=recipe_runner.majority_class_share(self.job.validation),
        )
        job = replace(self.job, recipe=steps, trial=self.trials_done, watch=watch)
        try:
            state, _ = recipe_runner.run_step(job, spent, len(steps) - 1, teacher=self._teacher)
        except HopelessTrialError as err:
            move = self._probe(parent, steps[-1])
            cost = move.epoch_cost if move else 1.0
            return Result(refused=f"{err.what}: {err.got}, {err.rule}", work=watch.epochs * cost)
        except ModelError as err:
            return Result(refused=str(err))
        self._last = (key(recipe), state)
        cost = self._epoch_cost(state.layers)
        self.clock.note_training(
            recipe,
            epochs=watch.steps / epoch_steps(self.job),
            epoch_cost=cost,
            seconds=watch.seconds,
        )
        epochs = watch.epochs if watch.cut else training_epochs(steps[-1])
        return replace(self.score(state), work=epochs * cost, cut=watch.cut)

    def _left_s(self) -> float:
        """Seconds that the search may still take: its clock's, or its trials' at their pace."""
        left = self.clock.left_s()
        if self.trials_done:
            each = self.clock.elapsed_s / self.trials_done
            left = min(left, each * (self.job.trials - self.trials_done))
        return max(0.0, left)

    def _next_rung(self, recipe: Recipe) -> int:
        """Epochs of the recovery that comes next, three times the last step's up to the longest; 0
        for none.
        """
        if not recipe:
            return 0
        final = capped_epochs(self.job, self.job.params.compress.search.final_epochs)
        last = training_epochs(dict(recipe[-1]))
        if recipe[-1]["use"] == RECOVERY and last >= final:
            return 0
        rung = RUNG_FACTOR * last
        return rung if 0 < rung <= final / 2 else final

    def chance(self, drop: float) -> float:
        """Probability that the budget holds on test, for a drop on validation."""
        asked, seen = self.job.params.compress.budget, len(self.job.validation.labels)
        return passing_probability.probability_for_drop(asked, drop, seen=seen, tested=self.tested)

    def score(self, state: ModelState) -> Result:
        """Score a model on the validation images against the float model."""
        asked, labels = self.job.params.compress.budget, self.job.validation.labels
        value, excess = self.cost_model.cost(state.model, state.layers)
        forecast = passing_probability.forecast_passing(
            asked, self.root.logits, state.logits, labels, tested=self.tested
        )
        return Result(
            value=value,
            drop=forecast.drop,
            chance=forecast.chance,
            excess=excess,
            figures={
                "params": float(state.size[0]),
                "macs": float(state.size[1]),
                "accuracy": state.accuracy.value,
                "epochs": float(state.epochs),
            },
        )

    def _rebuild(self, recipe: Recipe) -> ModelState:
        name = key(recipe)
        if not recipe:
            return self.root
        if self._last[0] != name:
            kept, _ = recipe_runner.load_step(self.job, self.job.scratch / name)
            self._last = (name, kept)
        return self._last[1]

    def _epoch_cost(self, layers: Sequence[layer_costs.LayerCost]) -> float:
        """Cost of an epoch in epochs of the float model: counted, so that the search goes the same
        way everywhere.
        """
        return max(
            EPOCH_COST_MIN, latency_from_macs_ms(layers) / latency_from_macs_ms(self.root.layers)
        )

    def _probe(self, state: ModelState, step: Options) -> Move | None:
        """Move that `step` would be, tried on an untrained copy; None if it cannot be."""
        spent = copy.deepcopy(state.model)
        spent.requires_grad_(True)
        plugin = plugins.resolve("techniques", step["use"], where="compress.recipe")
        options = {name: value for name, value in step.items() if name != "use"}
        context = compression_context(probe_job(self.job), state.model, state.plan)
        try:
            outcome = plugin.apply(spent, state.plan, parse_options(plugin, options), context)
            model = (outcome.model or spent).eval()
            layers = layer_costs.count_layers(model, example_input(self.job))
            value, excess = self.cost_model.cost(model, layers)
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
            anew=outcome.model is not None,
        )

    def _probe_drop(self, model: torch.nn.Module) -> float:
        train, normalise = self.job.train, split_reader.preprocess(self.job.params).normalise
        pixels, labels = train.pixels[:PROBE_IMAGES], train.labels[:PROBE_IMAGES]
        before, after = (
            accuracy_statistics.accuracy(inference.logits(model_, pixels, normalise), labels).value
            for model_ in (self.root.model, model)
        )
        return before - after


def probe_job(job: CompressionJob) -> CompressionJob:
    """Job with the first training images alone, for what is measured and not trained."""
    train = job.train
    few = replace(train, pixels=train.pixels[:PROBE_IMAGES], labels=train.labels[:PROBE_IMAGES])
    return replace(job, train=few)


def proposals(job: CompressionJob, state: ModelState) -> list[Options]:
    """Proposed steps of all techniques for the model; a step that recovers does so for
    search.trial_epochs. A technique that shrinks nothing of the module is not asked.
    """
    # the tracer follows gradients, which the teacher has none of
    model = copy.deepcopy(state.model).requires_grad_(True)
    untouched = state.plan == CompressionPlan()
    context = compression_context(probe_job(job), state.model, state.plan)
    sensitivity = sensitivity_analysis.measure_sensitivity(
        model, context, shares=(), as_built=untouched
    )
    multiple = context.channel_multiple
    steps: list[Options] = []
    for name in plugins.names("techniques"):
        plugin = plugins.resolve("techniques", name, where="compress.recipe")
        propose: Proposals | None = getattr(plugin, "proposals", None)
        claims: Capabilities = plugin.CLAIMS
        if propose is None or not (claims.shrinks_parameters or claims.shrinks_macs):
            continue
        offered = propose(sensitivity, multiple=multiple, seed=job.params.seed)
        for options in evenly_spaced(offered, PROPOSALS_MAX):
            step = {"use": name, **options}
            if "recover_epochs" in plugin.Params.model_fields:
                step["recover_epochs"] = job.params.compress.search.trial_epochs
            for asked in ("epochs", "recover_epochs"):
                if asked in step:
                    step[asked] = capped_epochs(job, int(str(step[asked])))
            steps.append(step)
    return steps


def epoch_steps(job: CompressionJob) -> int:
    """Training steps of an epoch of the job's images, cut to what one training may take."""
    whole = max(1, round(len(job.train.labels) / job.params.finetune.batch_images))
    return min(whole, job.params.compress.search.trial_steps_max)


def capped_epochs(job: CompressionJob, epochs: int) -> int:
    """Epochs cut to what `search.trial_steps_max` allows one training, one at least."""
    most = job.params.compress.search.trial_steps_max // epoch_steps(job)
    return min(epochs, max(1, most))


def training_epochs(step: Options) -> int:
    """Epochs that a step trains for, its technique's default where it does not say."""
    plugin = plugins.resolve("techniques", step["use"], where="compress.recipe")
    options = parse_options(plugin, {name: value for name, value in step.items() if name != "use"})
    own = options.model_dump()
    return int(own.get("recover_epochs", own.get("epochs", 0)))


def evenly_spaced(offered: Sequence[Options], most: int) -> list[Options]:
    """At most `most` of the proposals, mild to harsh, the first and the last among them."""
    if len(offered) <= most:
        return list(offered)
    last = len(offered) - 1
    return [offered[round(index * last / (most - 1))] for index in range(most)]
