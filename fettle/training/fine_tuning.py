"""Fine-tuning from a linear probe (LP-FT): probe, mirror test, rate, training, and which is kept.

Everything that is chosen here is chosen on the data's `validation` part, which the caller takes
from the training images: the validation split of the search and the test split are not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from fettle import lazy_array
from fettle.errors import ModelError
from fettle.facts.typed_document import TypedDocument
from fettle.lazy_array import RowArray
from fettle.training import inference, learning_rate_search, linear_probe, mirror_test
from fettle.training.inference import Floats, Pixels
from fettle.training.learning_rate_search import RateTrial
from fettle.training.linear_probe import Probe
from fettle.training.training_loop import epoch_steps, fit
from fettle.training.training_plan import Epoch, TrainingData, TrainingPlan
from fettle.training.training_run import OnStep

CHOICES = "choices.json"  # in scratch: what was chosen before the first epoch
_LOSS_MAX = 1e9  # a diverged trial's, where JSON has no infinity
_TRIAL_WARMUP_EPOCHS = 1 / 3  # of a trial; less tears the features, a whole training has an epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningPlan:
    """What is asked beside the training plan; `auto` is chosen on the choice images."""

    training: TrainingPlan
    linear_probe: bool
    learning_rate: float | Literal["auto"]
    flip_horizontal: bool | Literal["auto"]


class Choices(TypedDocument):
    """What was chosen before the first epoch; `trials` are (rate, loss)."""

    flip_horizontal: bool
    why: str
    learning_rate: float
    trials: tuple[tuple[float, float], ...]


@dataclass(slots=True)
class FineTuned:
    """What came of it; the model holds the weights of what was `kept`.

    `probe` and `trained` are accuracies on `choice_images` images; `said` are lines for a person.
    """

    curve: list[Epoch]
    best_epoch: int
    kept: Literal["trained", "probe"]
    learning_rate: float
    flip_horizontal: bool
    choice_images: int
    trained: float
    probe: float | None = None
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What every part of a fine-tuning needs; `say` tells a person what was chosen."""

    model: nn.Module
    head: nn.Module
    groups: Sequence[Sequence[nn.Module]]
    data: TrainingData
    plan: FineTuningPlan
    scratch: Path
    say: Callable[[str], None]


@dataclass(slots=True)
class _Start:
    """The model's first weights with the fitted head, and the features that it was fitted on."""

    probe: Probe
    train: RowArray[np.float32]
    choice: RowArray[np.float32]
    weights: dict[str, torch.Tensor]

    def logits(self) -> Floats:
        return linear_probe.answers(self.probe, self.choice)


def fine_tune(
    model: nn.Module,
    head: nn.Module,
    *,
    groups: Sequence[Sequence[nn.Module]],
    data: TrainingData,
    plan: FineTuningPlan,
    scratch: Path,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_step: OnStep = lambda _number, _of: None,
    say: Callable[[str], None] = lambda _: None,
) -> FineTuned:
    """Fit the head, choose what is `auto`, train, and keep the better of probe and training.

    `data.validation_*` are the choice images. The model ends in eval mode. What was chosen and each
    epoch are kept in `scratch`, so that a killed run ends with the same weights.
    """
    model.to(inference.device())
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        say(text)

    job = _Job(
        model=model, head=head, groups=groups, data=data, plan=plan, scratch=scratch, say=tell
    )
    start = _probe(job) if plan.linear_probe else None
    if plan.training.epochs_max == 0:
        return _probe_alone(job, start, said)
    chosen = _choose(job, start)
    training = replace(
        plan.training,
        learning_rate=chosen.learning_rate,
        augment=replace(plan.training.augment, flip_horizontal=chosen.flip_horizontal),
    )
    fitted = fit(
        model,
        data=data,
        plan=training,
        groups=groups,
        scratch=scratch,
        on_epoch=on_epoch,
        on_step=on_step,
    )
    answers = inference.logits(model, data.validation_pixels, data.normalise)
    result = FineTuned(
        curve=fitted.curve,
        best_epoch=fitted.best_epoch,
        kept="trained",
        learning_rate=training.learning_rate,
        flip_horizontal=bool(training.augment.flip_horizontal),
        choice_images=len(data.validation_labels),
        trained=inference.accuracy_of(answers, data.validation_labels),
        said=said,
    )
    if start is not None:
        _keep_the_better(job, start, answers, result)
    return result


def _probe_alone(job: _Job, start: _Start | None, said: list[str]) -> FineTuned:
    """Keep the linear probe: nothing is trained. Raises ModelError where there is none."""
    if start is None:
        raise ModelError(
            "finetune.epochs_max: 0 leaves it at the linear probe, and this model has none",
            got=" ".join(said) or "linear_probe: false",
            rule="a probe is folded into a last layer that is a Linear with a bias",
            fix="give epochs, and do without a first release (`fettle run --first`)",
        )
    labels = job.data.validation_labels
    right = inference.accuracy_of(start.logits(), labels)
    _put_back(job, start)
    job.say(
        f"nothing is trained: the linear probe has {right:.1%} of {len(labels):,} choice images"
    )
    return FineTuned(
        curve=[],
        best_epoch=0,
        kept="probe",
        learning_rate=job.plan.training.learning_rate,
        flip_horizontal=False,
        choice_images=len(labels),
        trained=right,
        probe=right,
        said=said,
    )


def _probe(job: _Job) -> _Start | None:
    """Fit the head on frozen features, choose its strength, fold it in; None where it cannot be."""
    model, head, data = job.model, job.head, job.data
    if not linear_probe.foldable(head):
        job.say(
            f"no linear probe: the last layer is {type(head).__name__}, not a Linear with a bias"
        )
        return None
    known, other = (
        linear_probe.features(model, head, pixels, data.normalise, scratch=job.scratch)
        for pixels in (data.train_pixels, data.validation_pixels)
    )
    if known is None or other is None:
        job.say("no linear probe: the last layer is not given one row of features an image")
        return None
    classes = linear_probe.outputs(head)
    probes = linear_probe.fit(known, data.train_labels, classes=classes, scratch=job.scratch)
    probe = linear_probe.best(probes, other, data.validation_labels)
    linear_probe.fold(head, probe)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return _Start(probe, known, other, weights)


def _choose(job: _Job, start: _Start | None) -> Choices:
    """Choose whether to flip and the learning rate, or read what a killed run chose."""
    file = job.scratch / CHOICES
    chosen = Choices.read(file) if file.is_file() else _make_choices(job, start)
    job.scratch.mkdir(parents=True, exist_ok=True)
    chosen.write(file)
    if chosen.why:
        job.say(chosen.why)
    if chosen.trials:
        tried = ", ".join(f"{rate:g}: {loss:.3f}" for rate, loss in chosen.trials)
        job.say(
            f"learning rate {chosen.learning_rate:g}, by the loss on "
            f"{len(job.data.validation_labels):,} choice images after short trials ({tried})"
        )
    return chosen


def _make_choices(job: _Job, start: _Start | None) -> Choices:
    flip, rate, why = job.plan.flip_horizontal, job.plan.learning_rate, ""
    if flip == "auto":
        flip, why = _may_flip(job, start)
    trials: list[RateTrial] = []
    if rate == "auto":
        augment = replace(job.plan.training.augment, flip_horizontal=flip)
        trials = _try_rates(job, replace(job.plan.training, augment=augment))
        rate = learning_rate_search.best(trials)
    return Choices(
        flip_horizontal=flip,
        why=why,
        learning_rate=rate,
        trials=tuple((trial.learning_rate, min(trial.loss, _LOSS_MAX)) for trial in trials),
    )


def _may_flip(job: _Job, start: _Start | None) -> tuple[bool, str]:
    """Ask the mirror test; without a probe nothing can be asked, and nothing is flipped."""
    if start is None:
        return False, "images are not flipped: only a linear probe can say if they may be"
    most, data = mirror_test.IMAGES_MAX, job.data
    first = lazy_array.select(data.train_pixels, slice(0, most))

    def mirrored(pixels: Pixels) -> Floats:
        return data.normalise(np.ascontiguousarray(pixels[..., ::-1]))

    features = linear_probe.features(job.model, job.head, first, mirrored, scratch=job.scratch)
    assert features is not None, "the upright images had features"
    found = mirror_test.test(
        start.train[:most], features[:], data.train_labels[:most], strength=start.probe.strength
    )
    numbers = f"{found.mirrored:.1%} of {found.n:,} mirrored, {found.upright:.1%} upright"
    if found.allowed:
        return True, f"images are flipped: mirrored ones are classified as well ({numbers})"
    return False, f"images are not flipped: mirrored ones are taken for another class ({numbers})"


def _try_rates(job: _Job, training: TrainingPlan) -> list[RateTrial]:
    """Train shortly at each rate from the same weights on the same images."""
    data = job.data
    steps = learning_rate_search.trial_steps(training.epochs_max * epoch_steps(data, training))
    draw = np.random.default_rng(training.seed)
    rows = draw.permutation(len(data.train_labels))[: steps * training.batch_images]
    short = replace(
        data,
        train_pixels=lazy_array.select(data.train_pixels, rows),
        train_labels=data.train_labels[rows],
    )
    epochs = max(1, round(steps / epoch_steps(short, training)))
    plan = replace(
        training,
        epochs_max=epochs,
        epochs_head=0,
        unfreeze_every_epochs=0,
        warmup_epochs=_TRIAL_WARMUP_EPOCHS * epochs,
        weight_averaging="none",
    )

    def train(rate: float) -> float:
        at_rate = replace(plan, learning_rate=rate)
        fitted = fit(job.model, data=short, plan=at_rate, groups=job.groups)
        return fitted.curve[-1].validation_loss

    return learning_rate_search.search(job.model, train)


def _keep_the_better(job: _Job, start: _Start, answers: Floats, result: FineTuned) -> None:
    """Put the probe back where training ended below it; it is fitted on all images then."""
    labels = job.data.validation_labels
    result.probe = inference.accuracy_of(start.logits(), labels)
    shown = (
        f"{result.trained:.1%} of {len(labels):,} choice images after training, {result.probe:.1%} "
        "by the linear probe"
    )
    if (result.trained, -inference.loss_of(answers, labels)) >= (
        result.probe,
        -inference.loss_of(start.logits(), labels),
    ):
        job.say(f"the trained network is kept: {shown}")
        return
    _put_back(job, start)
    result.kept = "probe"
    job.say(f"the linear probe is the model, fine-tuning did not improve it: {shown}")


def _put_back(job: _Job, start: _Start) -> None:
    """Give the model its first weights and a probe that is fitted on all images."""
    everything = lazy_array.gather(
        (part[rows] for part in (start.train, start.choice) for rows in lazy_array.chunks(part)),
        shape=(len(start.train) + len(start.choice), *start.train.shape[1:]),
        dtype=np.float32,
        folder=job.scratch,
        what="the features of the training images",
    )
    known = np.concatenate([job.data.train_labels, job.data.validation_labels])
    job.model.load_state_dict(start.weights)
    linear_probe.fold(
        job.head,
        linear_probe.fit(
            everything,
            known,
            classes=len(start.probe.bias),
            strengths=[start.probe.strength],
            scratch=job.scratch,
        )[0],
    )
    job.model.eval()
