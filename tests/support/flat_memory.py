"""Bring few and then ten times as many photos through ingest, validate and a split, and print the
peak memory of this process after each, in MiB: `python flat_memory.py FOLDER FEW MANY SIDE`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tiny_photos
from tiny_project import settings

from fettle import manifest
from fettle.data import split_reader
from fettle.data.sources import image_folder
from fettle.local_settings import location, set_local
from fettle.recorder import NullRecorder
from fettle.stage_contract import Inputs
from stages import ingest, validate

DRAWINGS = 100


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run(root: Path, count: int, side_px: int) -> None:
    """Do what the stages do with `count` photos of noise."""
    drawings = [tiny_photos.jpeg(seed, size_px=side_px) for seed in range(DRAWINGS)]
    for at in range(count):
        row, tail = f"photos/{'cat' if at % 2 else 'dog'}/{at}.jpg", at.to_bytes(4, "big")
        tiny_photos.place(root, row, drawings[at % DRAWINGS] + tail)
    set_local(root, "data", root / "photos")
    options = image_folder.Params()
    print_now = image_folder.fingerprint(options, location(root, options))
    manifest.write_json(root / "inputs" / "source.json", {"source": "image_folder", **print_now})
    params = settings(
        "ingest.source=image_folder",
        "ingest.split={train: 0.8, validation: 0.1, test: 0.1}",
        "preprocess.channels=3",
        f"preprocess.size_px={side_px}",
    )
    folders: dict[str, Path] = {}
    for name, stage in (("ingest", ingest), ("validate", validate)):
        out = root / name
        out.mkdir()
        stage.run(params, Inputs(folders, root, root / "scratch"), out, NullRecorder())
        folders = {**folders, name: out}
    inputs = Inputs(folders, root, root / "scratch")
    pixels = split_reader.images(inputs, params, "train").pixels
    for seed in range(20):
        pixels[np.random.default_rng(seed).permutation(len(pixels))[:32]]


if __name__ == "__main__":
    peaks = []
    for count in map(int, sys.argv[2:4]):
        root = Path(sys.argv[1]) / str(count)
        root.mkdir()
        run(root, count, int(sys.argv[4]))
        peaks.append(peak_mib())
    sys.stdout.write(json.dumps(peaks))
