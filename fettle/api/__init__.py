"""Python API: what the command line does, as three functions of the package `fettle`.

compression_project   fettle.compress(model, train, val): a project, run by `fettle run`
loaded_release        fettle.load(release).predict(images): the server's answers, in this process
release_evaluation    fettle.evaluate(release, data): accuracy with its interval
labelled_images       images with labels, however they are given: folders, tables, arrays, pairs
image_encoding        an image, however it is given, as the bytes of a file
user_network          a network that lies in memory, handed over to the stages as a file
"""

from __future__ import annotations

from fettle.api.compression_project import CompressedRelease, compress
from fettle.api.loaded_release import ImageAnswer, LoadedRelease, load
from fettle.api.release_evaluation import ReleaseEvaluation, evaluate

__all__ = [
    "CompressedRelease",
    "ImageAnswer",
    "LoadedRelease",
    "ReleaseEvaluation",
    "compress",
    "evaluate",
    "load",
]
