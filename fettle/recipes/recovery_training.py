"""Recovery training between the steps of a recipe: distillation from the float model.

fettle.compress and fettle.training must not import each other; they meet here, by value: a
technique is handed `recovery_fit(...)` as its `fit`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from fettle.compress.technique import RecoveryFit
from fettle.compress.techniques import distil
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.hardware.runtimes import ort
from fettle.params import Params
from fettle.params_schema import Options
from fettle.recipes import teacher_answers
from fettle.recipes.remaining_time import RemainingTime
from fettle.recipes.teacher_answers import TeacherAnswers
from fettle.recipes.training_setup import threads, training_data
from fettle.recipes.trial_watch import TrialWatch
from fettle.recorder import Recorder
from fettle.training import inference
from fettle.training import training_plan as training
from fettle.training.augmentation import Augmentation
from fettle.training.training_loop import Loss, fit

BATCH_IMAGES = 64  # of the passes without a gradient: BatchNorm needs tens of images a batch
# After so many epochs a recovery sees the same batches again, and the teacher need not be asked: it
# takes four fifths of a small student's epoch (ADR 0033).
VIEWS_EPOCHS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionJob:
    """Compression job: model, data, recipe. `facts` and `weights` are finetune's.

    A search does this many times: `trial` counts them from 0, `trials` at most. `answers` keeps
    what the teacher said of a batch, by the batch's digest: trainings at the same epoch of a recipe
    draw the same images, and the teacher costs more than a small student. `watch` may end a trial
    in the middle of its training.
    """

    params: Params
    recipe: Sequence[Options]
    facts: FinetuneFacts
    weights: Path
    project: Path
    scratch: Path
    train: Images
    validation: Images
    recorder: Recorder
    answers: TeacherAnswers
    trial: int = 0
    trials: int = 1
    watch: TrialWatch = field(default_factory=TrialWatch)


Teacher = Callable[[torch.Tensor], torch.Tensor]  # a normalised batch → logits [n, classes]


def load_teacher(weights: Path, model: nn.Module) -> Teacher:
    """Teacher that answers as the float model: the module on a GPU; on a CPU the ONNX that finetune
    wrote beside the weights, whose forward pass takes ONNX Runtime a third of torch's time.
    """
    if inference.device().type != "cpu":

        def by_torch(images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return model(images)  # type: ignore[no-any-return] # nn.Module's call is Any

        return by_torch
    session = ort.open(weights.with_name("model.onnx"), threads=threads())

    def by_onnx(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(images.contiguous().numpy()))

    return by_onnx


class ReportEpoch:
    """Epoch callback: tells the recorder of each epoch of recovery, counted over the recipe."""

    def __init__(self, job: CompressionJob, index: int, use: str, epochs: int) -> None:
        self.job, self.index, self.use, self.epochs = job, index, use, epochs
        self._time = RemainingTime()

    def begin(self) -> None:
        """Begin a phase: its time is its own."""
        self._time = RemainingTime()

    def step(self, number: int, total: int, *, phase: str, of: int) -> None:
        """Note a step of `phase`; say how far it is, at most every few seconds."""
        if self._time.step(number, total):
            self._say((number - 1) / total, phase, (number - 1) * of // total + 1, of)

    def _say(self, done: float, phase: str, epoch: int, of: int) -> None:
        left = self._time.text()
        text = f"{self.use}, {phase}: epoch {epoch} of {of}{left}"
        if self.job.trials > 1:
            number = self.job.trial + 1
            search = self.job.watch.left() if left else ""
            text = f"trial {number} of at most {self.job.trials}: {text}{search}"
            self.job.recorder.progress((self.job.trial + done) / self.job.trials, text)
            return
        self.job.recorder.progress((self.index + done) / len(self.job.recipe), text)

    def epoch(self, result: training.Epoch, *, phase: str, of: int) -> None:
        """Record one finished epoch of `phase`, which has `of` of them."""
        self.epochs += 1
        self.job.watch.epoch(result.epoch, of=of, accuracy=result.validation_accuracy)
        recorder = self.job.recorder
        if self.job.trials == 1:  # one curve of many short trainings would say nothing
            recorder.scalar("recovery_loss", result.train_loss, step=self.epochs)
            recorder.scalar("validation_accuracy", result.validation_accuracy, step=self.epochs)
        self._say(result.epoch / of, phase, result.epoch, of)


def recovery_fit(
    job: CompressionJob, teacher: Teacher, folder: Path, report: ReportEpoch
) -> RecoveryFit:
    """Recovery `fit` that techniques train with: distillation from the float model.

    Each phase keeps its epochs in a folder named by what it starts from; a finished phase found
    there is loaded, not trained again.
    """
    data = training_data(job.params, train=job.train, validation=job.validation)

    def recover(
        model: nn.Module,
        *,
        phase: str,
        epochs: int,
        learning_rate: float,
        temperature: float,
        alpha: float,
    ) -> None:
        plan = replace(
            training_plan(job.params),
            epochs_max=epochs,
            learning_rate=learning_rate,
            rate_key=f"compress.recipe[{report.index}].learning_rate",
            epochs_before=report.epochs,
            views_epochs=VIEWS_EPOCHS,
            epoch_steps_max=job.params.compress.search.trial_steps_max,
        )
        report.begin()
        with job.watch.timing():
            fitted = fit(
                model,
                data=data,
                plan=plan,
                loss=job.watch.each_step(
                    distillation_loss(teacher, job.answers, temperature=temperature, alpha=alpha)
                ),
                scratch=folder / f"{phase}-{weights_digest(model)}",
                on_epoch=lambda result: report.epoch(result, phase=phase, of=epochs),
                on_step=lambda number, total: report.step(number, total, phase=phase, of=epochs),
            )
        if fitted.stopped:
            job.watch.cut = f"a training ended after {len(fitted.curve)} of {epochs} epochs"

    return recover


def distillation_loss(
    teacher: Teacher, known: TeacherAnswers, *, temperature: float, alpha: float
) -> Loss:
    """Distillation loss of a student on a batch: the teacher sees the same augmented images.

    What it has answered to a batch before is `known`; new answers are added while there is room.
    """

    def loss(student: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        batch = teacher_answers.digest(images)
        answers = known.get(batch)
        if answers is None:
            answers = teacher(images)
            known.keep(batch, answers)
        answers = answers.to(images.device)
        return distil.distillation_loss(
            student(images), answers, labels, temperature=temperature, alpha=alpha
        )

    return loss


def training_plan(params: Params) -> training.TrainingPlan:
    """Training plan: what recovery shares with finetune; rate and epochs are the technique's.

    Class weights and thresholds are not repeated: the teacher's answers carry them.
    """
    finetune = params.finetune
    return training.TrainingPlan(
        epochs_max=1,
        learning_rate=float(finetune.learning_rate),  # never auto here: finetune decided
        seed=params.seed,
        batch_images=finetune.batch_images,
        weight_decay=finetune.weight_decay,
        batchnorm_momentum=finetune.batchnorm_momentum,
        imbalance="sampler" if finetune.imbalance == "sampler" else "none",
        mixed_precision=finetune.mixed_precision,
        augment=Augmentation(**finetune.augment.model_dump()),
    )


def example_input(job: CompressionJob) -> torch.Tensor:
    """Return the example input: the first validation image, normalised, [1, C, S, S]."""
    normalise = split_reader.preprocess(job.params).normalise
    return torch.from_numpy(normalise(job.validation.pixels[:1])).to(inference.device())


def training_batches(job: CompressionJob) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Training batches of the images as they are: (normalised [N, C, S, S], labels [N])."""
    normalise, where = split_reader.preprocess(job.params).normalise, inference.device()
    for start in range(0, len(job.train.labels), BATCH_IMAGES):
        job.watch.ask()
        rows = slice(start, start + BATCH_IMAGES)
        images = inference.to_device(normalise(job.train.pixels[rows]), where)
        yield images, torch.from_numpy(job.train.labels[rows]).to(where)


def skip_training(model: nn.Module, **_asked: object) -> None:
    """No training, where a copy is only looked at: the model stays as it is."""


def weights_digest(model: nn.Module) -> str:
    """Digest of a model's weights: a training kept on disk is of this start or of no use."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(plain.numpy().tobytes())
    return digest.hexdigest()[:16]
