"""Augmentation: random changes of training images as batched tensor operations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Ranges of the random changes; all zero or false is none.

    Shifts are shares of the side, `rotate_degrees` and `scale_fraction` go both ways, brightness
    is added (share of full scale), contrast multiplies around the image's mean, and
    `erase_fraction` is the area of a random square replaced by the image's mean. A random resized
    crop keeps `crop_scale_min` of the area at least (1: all of it; Szegedy et al. 2015). Two images
    are blended by mixup (arXiv:1710.09412), or one pasted into the other by CutMix
    (arXiv:1905.04899), with their labels; the alphas are of the Beta law of the share.
    """

    shift_fraction: float = 0.0
    rotate_degrees: float = 0.0
    scale_fraction: float = 0.0
    brightness_fraction: float = 0.0
    contrast_fraction: float = 0.0
    flip_horizontal: bool = False
    erase_fraction: float = 0.0
    crop_scale_min: float = 1.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that labels are shares of classes."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


_ASPECT_MAX = 4 / 3  # width over height of a random resized crop, either way (Szegedy et al. 2015)


def apply(
    images: torch.Tensor, augment: Augmentation, *, std: float, generator: torch.Generator
) -> torch.Tensor:
    """Change a normalised batch [N, C, S, S]; `std` turns full-scale shares into its units.

    What a shift or turn uncovers repeats the image's border.
    """
    if (
        augment.shift_fraction
        or augment.rotate_degrees
        or augment.scale_fraction
        or augment.flip_horizontal
        or augment.crop_scale_min < 1
    ):
        images = _warp(images, augment, generator)
    if augment.brightness_fraction or augment.contrast_fraction:
        images = _relight(images, augment, std, generator)
    if augment.erase_fraction:
        images = _erase(images, augment.erase_fraction, generator)
    return images


def _uniform(count: int, reach: float, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(count, generator=generator) * 2 - 1) * reach


def _warp(images: torch.Tensor, augment: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Shift, turn, zoom and mirror by one affine grid a batch (bilinear)."""
    count = images.shape[0]
    angle = _uniform(count, math.radians(augment.rotate_degrees), generator)
    zoom = 1 + _uniform(count, augment.scale_fraction, generator)
    shift_x = _uniform(count, 2 * augment.shift_fraction, generator)  # the grid spans -1 to 1
    shift_y = _uniform(count, 2 * augment.shift_fraction, generator)
    mirror = torch.ones(count)
    if augment.flip_horizontal:
        mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    wide = tall = torch.ones(count)
    if augment.crop_scale_min < 1:
        area = 1 - torch.rand(count, generator=generator) * (1 - augment.crop_scale_min)
        aspect = torch.exp(_uniform(count, math.log(_ASPECT_MAX) / 2, generator))
        wide = (area.sqrt() * aspect).clamp_max(1.0)
        tall = (area.sqrt() / aspect).clamp_max(1.0)
        shift_x = shift_x + (1 - wide) * _uniform(count, 1.0, generator)
        shift_y = shift_y + (1 - tall) * _uniform(count, 1.0, generator)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    across, down = mirror * wide, tall
    rows = torch.stack(
        [cos * across, -sin * down, shift_x, sin * across, cos * down, shift_y], dim=1
    )
    grid = F.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(
        images,
        grid.to(images.device),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def mix(
    images: torch.Tensor,
    labels: torch.Tensor,
    augment: Augmentation,
    *,
    classes: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image of a batch with another: images [n, C, S, S], shares of classes [n, classes].

    Where both are asked for, a batch is mixed by one or the other, each half of the time.
    """
    shares = F.one_hot(labels, classes).to(images.dtype)
    draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    asked = [("mixup", augment.mixup_alpha), ("cutmix", augment.cutmix_alpha)]
    name, alpha = [one for one in asked if one[1] > 0][draw.integers(sum(a > 0 for _, a in asked))]
    kept = float(draw.beta(alpha, alpha))
    order = torch.from_numpy(draw.permutation(len(images))).to(images.device)
    if name == "mixup":
        images = kept * images + (1 - kept) * images[order]
    else:
        height, width = images.shape[2:]
        tall, wide = round(height * math.sqrt(1 - kept)), round(width * math.sqrt(1 - kept))
        top, left = draw.integers(height - tall + 1), draw.integers(width - wide + 1)
        rows, columns = slice(top, top + tall), slice(left, left + wide)
        images = images.clone()
        images[:, :, rows, columns] = images[order][:, :, rows, columns]
        kept = 1 - tall * wide / (height * width)
    return images, kept * shares + (1 - kept) * shares[order]


def _relight(
    images: torch.Tensor, augment: Augmentation, std: float, generator: torch.Generator
) -> torch.Tensor:
    count = images.shape[0]
    light = _uniform(count, augment.brightness_fraction / std, generator)
    contrast = 1 + _uniform(count, augment.contrast_fraction, generator)
    light = light.view(-1, 1, 1, 1).to(images.device)
    contrast = contrast.view(-1, 1, 1, 1).to(images.device)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * contrast + mean + light


def _erase(images: torch.Tensor, area: float, generator: torch.Generator) -> torch.Tensor:
    """Fill one square of `area` (share of the image) at a random place with the image's mean."""
    count, _, height, width = images.shape
    side_y, side_x = math.sqrt(area) * height, math.sqrt(area) * width
    top = torch.rand(count, generator=generator) * (height - side_y)
    left = torch.rand(count, generator=generator) * (width - side_x)
    y, x = torch.arange(height).view(1, -1), torch.arange(width).view(1, -1)
    in_y = (y >= top.view(-1, 1)) & (y < top.view(-1, 1) + side_y)
    in_x = (x >= left.view(-1, 1)) & (x < left.view(-1, 1) + side_x)
    hole = (in_y.unsqueeze(2) & in_x.unsqueeze(1)).unsqueeze(1).to(images.device)
    return torch.where(hole, images.mean(dim=(1, 2, 3), keepdim=True), images)
