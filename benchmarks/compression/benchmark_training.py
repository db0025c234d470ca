"""Build and train networks on a prepared data set, as stages do, for rows that need a module."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.context import Prepared
from fettle import manifest, plugins
from fettle.compress.technique import CompressionContext
from fettle.compress.techniques import distil
from fettle.data import split_reader
from fettle.evaluation import accuracy_statistics
from fettle.recipes import recovery_training
from fettle.recipes.training_setup import training_data
from fettle.training import inference
from fettle.training.training_loop import Loss, fit
from fettle.training.training_plan import TrainingData

BATCH_IMAGES = 64


def build(one: Prepared, family: str, options: dict[str, Any]) -> nn.Module:  # Any: see the family
    """Make a family's network for the data set, untrained, from the project's seed."""
    torch.manual_seed(one.params.seed)
    plugin = plugins.resolve("families", family, where="finetune.family")
    model: nn.Module = plugin.build(
        plugin.Params.model_validate_json(json.dumps(options)),
        classes=len(_facts(one)["classes"]),
        channels=one.shape[0],
        size_px=one.shape[1],
        project=one.inputs.project,
    )
    return model


def float_model(one: Prepared) -> nn.Module:
    """Load the fine-tuned model in eval mode."""
    facts = _facts(one)
    model = build(one, facts["family"], facts["options"])
    model.load_state_dict(load_file(one.inputs["finetune"] / "model.safetensors"))
    return model.eval()


def epochs_taken(one: Prepared) -> int:
    """Return how many epochs the float model was fine-tuned for."""
    return int(_facts(one)["epochs"])


def train(
    one: Prepared, model: nn.Module, *, epochs: int, rate: float, loss: Loss | None = None
) -> float:
    """Train in place by the data set's own schedule; return the best accuracy on validation.

    Without `loss` it is the cross-entropy with the data set's label smoothing.
    """
    plan = replace(
        recovery_training.training_plan(one.params),
        epochs_max=epochs,
        learning_rate=rate,
        label_smoothing=one.params.finetune.label_smoothing,
    )
    fitted = fit(model, data=_data(one), plan=plan, loss=loss)
    return fitted.curve[fitted.best_epoch - 1].validation_accuracy


def accuracy(one: Prepared, model: nn.Module) -> float:
    """Return the accuracy on validation."""
    found = one.images("validation")
    logits = inference.logits(model, found.pixels, split_reader.preprocess(one.params).normalise)
    return accuracy_statistics.accuracy(logits, found.labels).value


def compression_context(one: Prepared, teacher: nn.Module, *, seed: int) -> CompressionContext:
    """Compression context as the stage makes it; recovery is distillation from `teacher`."""

    def towards(temperature: float, alpha: float) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                answers = teacher(images)
            return distil.distillation_loss(
                model(images), answers, labels, temperature=temperature, alpha=alpha
            )

        return loss

    def recover(
        model: nn.Module,
        *,
        phase: str,
        epochs: int,
        learning_rate: float,
        temperature: float,
        alpha: float,
    ) -> None:
        del phase  # nothing is kept
        train(one, model, epochs=epochs, rate=learning_rate, loss=towards(temperature, alpha))

    family = plugins.resolve("families", _facts(one)["family"], where="finetune.family")
    kept = {inner for module in family.protected(teacher) for inner in module.modules()}
    return CompressionContext(
        example=next(batches(one))[0][:1],
        protected={n: "protected" for n, module in teacher.named_modules() if module in kept},
        channel_multiple=8,
        seed=seed,
        batches=lambda: batches(one),
        fit=recover,
        build=lambda name, options: build(one, name, options),
    )


def batches(one: Prepared) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the training images as they are: (normalised [n, C, S, S], labels [n])."""
    train_images = one.images("train")
    batch = torch.from_numpy(one.batch(train_images))
    labels = torch.from_numpy(train_images.labels)
    for start in range(0, len(labels), BATCH_IMAGES):
        yield batch[start : start + BATCH_IMAGES], labels[start : start + BATCH_IMAGES]


def _data(one: Prepared) -> TrainingData:
    return training_data(one.params, train=one.images("train"), validation=one.images("validation"))


def _facts(one: Prepared) -> dict[str, Any]:  # Any: JSON
    return dict(manifest.read(one.inputs["finetune"], verify=False).facts)
