"""State the sections preprocess and finetune of params.yaml: from any image to a float model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fettle.errors import OurFault
from fettle.params_types import (
    BATCH_IMAGES_MAX,
    Auto,
    Fraction,
    Options,
    Positive,
    Strict,
    number_or_auto,
    per_channel,
)

_MEAN = per_channel(lambda v: 0 <= float(str(v)) <= 1, "a number 0 to 1")
# below 1e-3: near-black inputs of 1e3 and more
_STD = per_channel(lambda v: 1e-3 <= float(str(v)) <= 1, "a number 0.001 to 1")
Levels = float | list[float]


class PreprocessParams(Strict):
    """From any image to the model's input; the same code in training and in the release.

    `auto` is decided by finetune, from the images' own sizes, the family's record and what its
    pixels cost; every later stage gets the decided number. `fit` says what becomes of an image that
    is not square (fettle/preprocessing.py).
    """

    size_px: Annotated[int | Auto, number_or_auto(8, 1024, whole=True)]
    channels: Literal[1, 3]
    mean: Annotated[Levels | Auto, _MEAN]
    std: Annotated[Levels | Auto, _STD]
    fit: Literal["stretch", "crop", "pad"] = "stretch"

    @model_validator(mode="after")
    def _one_level_a_channel(self) -> Self:
        for name, levels in (("mean", self.mean), ("std", self.std)):
            if isinstance(levels, list) and len(levels) != self.channels:
                raise ValueError(
                    f"{name} has {len(levels)} numbers, for {self.channels} channels: give one "
                    "number, or one a channel"
                )
        return self

    @property
    def side_px(self) -> int:
        """The decided side; a stage never sees auto."""
        if self.size_px == "auto":
            raise OurFault("a stage asked for preprocess.size_px before it was decided")
        return self.size_px


class AugmentParams(Strict):
    """Random changes of a training image; all zero or false is none, and so is a least crop of 1.

    `crop_scale_min` is the least share of the area that a random resized crop keeps.
    Flips under `auto` are allowed only if mirrored images are classified as well as upright ones.
    """

    shift_fraction: Fraction = 0.0
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale_fraction: Fraction = 0.0
    brightness_fraction: Fraction = 0.0
    contrast_fraction: Fraction = 0.0
    flip_horizontal: bool | Auto = False
    erase_fraction: Fraction = 0.0
    crop_scale_min: Annotated[float, Field(gt=0, le=1)] = 1.0
    mixup_alpha: Annotated[float, Field(ge=0, le=10)] = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0, le=10)] = 0.0


class Finetune(Strict):
    """Transfer learning: `family` is a file in fettle/models/families, torchvision:NAME or
    timm:NAME, or module:function of yours.

    With `linear_probe` the head is fitted on the frozen features first (LP-FT, Kumar et al. 2022,
    arXiv:2202.10054), and stays the model if training ends below it. `choice_fraction` of the
    training images choose the rate, the epoch and between the two; 0 leaves that to validation.
    `freeze_batchnorm` trains with the statistics that the weights came with; `auto` does so where
    the family's weights are pretrained. `epochs_max` 0 leaves it at the linear probe.
    `epoch_steps_max` cuts an epoch to that many batches, others each time; null: all images.
    """

    family: str
    options: Options = {}
    linear_probe: bool = False
    choice_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    epochs_head: Annotated[int, Field(ge=0, lt=2**31)]
    epochs_max: Annotated[int, Field(ge=0, lt=2**31)]
    epoch_steps_max: Positive | None = None
    patience_epochs: Positive
    unfreeze_every_epochs: Annotated[int, Field(ge=0, lt=2**31)]
    batch_images: Annotated[int, Field(ge=2, le=BATCH_IMAGES_MAX)]
    learning_rate: Annotated[float | Auto, number_or_auto(0, float("inf"), above=True)]
    learning_rate_decay_per_group: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    batchnorm_momentum: Annotated[float, Field(gt=0, le=1)]
    freeze_batchnorm: bool | Auto = False
    weight_averaging: Literal["none", "ema"] = "none"
    imbalance: Literal["none", "weights", "sampler", "thresholds"]
    mixed_precision: Literal["auto", "off"]
    augment: AugmentParams = AugmentParams()

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if self.epochs_max == 0 and not self.linear_probe:
            raise ValueError("epochs_max: 0 trains nothing: set linear_probe: true, or give epochs")
        return self

    @model_validator(mode="after")
    def _choices_have_images(self) -> Self:
        asks = {
            "linear_probe: true": self.linear_probe,
            "learning_rate: auto": self.learning_rate == "auto",
            "augment.flip_horizontal: auto": self.augment.flip_horizontal == "auto",
        }
        asking = [name for name, asked in asks.items() if asked]
        if asking and not self.choice_fraction:
            raise ValueError(
                f"{', '.join(asking)} needs images to choose by: set choice_fraction above 0, "
                "for example 0.1"
            )
        return self
