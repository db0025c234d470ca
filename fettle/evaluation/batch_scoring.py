"""Batch scoring: a loaded model over many images, as evaluate and verdict share it."""

from __future__ import annotations

import numpy as np

from fettle import lazy_array
from fettle.data import split_reader
from fettle.hardware.runtimes import Session
from fettle.lazy_array import RowArray
from fettle.params import Params
from fettle.preprocessing import Floats

CHUNK_IMAGES = 64  # held in float32 at once; the answers do not depend on it


def predict_logits(session: Session, params: Params, pixels: RowArray[np.uint8]) -> Floats:
    """Predict the logits [N, classes] of uint8 images [N, C, S, S], a chunk at a time."""
    normalise = split_reader.preprocess(params).normalise
    starts = range(0, len(pixels), CHUNK_IMAGES)
    batches = (slice(start, start + CHUNK_IMAGES) for start in starts)
    parts = lazy_array.read_ahead(pixels, batches)
    return np.concatenate([session.run(normalise(part)) for part in parts])
