"""Augmentation: random changes of training images as batched tensor operations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Ranges of the random changes; all zero or false is none.

    Shifts are shares of the side, `rotate_degrees` and `scale_fraction` go both ways, brightness
    is added (share of full scale), contrast multiplies around the image's mean, and
    `erase_fraction` is the area of a random square replaced by the image's mean.
    """

    shift_fraction: float = 0.0
    rotate_degrees: float = 0.0
    scale_fraction: float = 0.0
    brightness_fraction: float = 0.0
    contrast_fraction: float = 0.0
    flip_horizontal: bool = False
    erase_fraction: float = 0.0


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
        or (augment.flip_horizontal)
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
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = torch.stack([cos * mirror, -sin, shift_x, sin * mirror, cos, shift_y], dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(
        images,
        grid.to(images.device),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


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
