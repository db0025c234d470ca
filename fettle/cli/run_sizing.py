"""Size of a run before it starts: its images, what their pixels cost, this machine's pace.

What ingest has counted is taken; before it the source's own count, and the sizes of its first
images. The pace is measured once for each network, size and machine, and remembered in
.fettle/training_pace.json.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import manifest, plugins
from fettle.recipes import run_costs
from fettle.recipes.run_costs import RunSize

if TYPE_CHECKING:
    from fettle.data.sources import Item
    from fettle.models.input_record import InputRecord
    from fettle.params import Params
    from fettle.project import Project

PACES = "training_pace.json"
SAMPLED = 200  # images whose sizes are looked at, where ingest has not yet
PROBE_LIMIT_S = 120  # torch is imported and the network built first
PACE_STEP = 1.25  # paces are rounded up to powers of it where params follow from them


def size_of(place: Project, settings: Params, *, probe: bool = True) -> RunSize:
    """Measure the size of a run in `place`; probes this machine the first time, or takes it to be
    as fast as the table's.
    """
    images, counts, sides = _images(place.tree, settings)
    family = plugins.resolve("families", settings.finetune.family, where="finetune.family")
    options = family.Params.model_validate_json(json.dumps(settings.finetune.options))
    record = family.input_record(options, place.tree)
    side = _side(settings, record, sides)
    cost = _cost(side, record)
    image_s = run_costs.image_s()
    pace = 1.0
    if family.TRAINS and probe:
        pace = _image_s(place, settings, side) / (image_s * cost)
    return RunSize(
        images=images,
        train=counts["train"],
        validation=counts["validation"],
        cost=cost,
        pace=pace,
        image_s=image_s,
        trains=family.TRAINS,
        side_px=side,
    )


def coarse_pace(pace: float) -> float:
    """Round a pace up to a power of PACE_STEP: a probe that says 1 % else changes no params."""
    return float(PACE_STEP ** math.ceil(math.log(pace, PACE_STEP) - 0.1))


def _images(tree: Path, settings: Params) -> tuple[int, dict[str, int], list[int]]:
    """Count all images and those of each split; the shorter sides, of a sample before ingest."""
    from fettle.data import image_table
    from fettle.facts.ingest_facts import IngestFacts

    asked = json.loads((tree / "inputs" / "source.json").read_text())
    folder, passed = tree / "artifacts" / "ingest", tree / "artifacts" / "validate"
    if (folder / manifest.NAME).is_file():
        facts = manifest.read(folder, IngestFacts, verify=False).facts
        whole = facts.limited_from is None and settings.ingest.limit is None
        if whole and (facts.source, facts.digest) == (asked["source"], asked["digest"]):
            splits = ("train", "validation", "test")
            counts = {name: sum(one[name] for one in facts.classes.values()) for name in splits}
            known = (passed / image_table.ROWS).is_file()
            sides = image_table.shorter_sides(folder, passed, "train") if known else []
            if sides:
                return facts.rows, counts, sides
    images = int(asked["images"])
    return _sampled(tree, settings, min(images, settings.ingest.limit or images))


def _sampled(tree: Path, settings: Params, images: int) -> tuple[int, dict[str, int], list[int]]:
    from PIL import Image

    from fettle import local_settings

    source = plugins.resolve("sources", settings.ingest.source, where="ingest.source")
    options = source.Params.model_validate(settings.ingest.options, strict=False)
    items: list[Item] = list(
        itertools.islice(source.read(options, local_settings.location(tree, options)), SAMPLED)
    )
    sides = []
    for item in items:
        try:
            with Image.open(io.BytesIO(item.encoded)) as image:
                sides.append(min(image.size))
        except (OSError, ValueError):
            continue  # ingest will say so
    shares = settings.ingest.split.model_dump()
    names = ("train", "validation", "test")
    return images, {name: round(images * shares[name]) for name in names}, sides or [224]


def _side(settings: Params, record: InputRecord, sides: list[int]) -> int:
    from fettle.models import input_size

    if settings.preprocess.size_px != "auto":
        return int(settings.preprocess.size_px)
    return input_size.choose(sides, record).size_px


def _cost(side: int, record: InputRecord) -> float:
    from fettle.models import input_size

    table = input_size.CostTable.model_validate_json(input_size.COSTS.read_text())
    return input_size.relative_cost(side, record, table)


def _image_s(place: Project, settings: Params, side: int) -> float:
    """Seconds of an image in a step of training: remembered, or measured now."""
    from fettle.hardware import machine_fingerprint

    section = settings.finetune
    asked = {
        "machine": machine_fingerprint.fingerprint(),
        "family": section.family,
        "options": section.options,
        "augment": section.augment.model_dump(),
        "batch": section.batch_images,
        "channels": settings.preprocess.channels,
        "side_px": side,
    }
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    file = place.state / PACES
    known: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
    if name not in known:
        known[name] = _probe(place, side)
        manifest.write_json(file, known)
    return known[name]


def _probe(place: Project, side: int) -> float:
    """Run the probe in a process of its own; raises OurFault when it ends without an answer."""
    from fettle.errors import OurFault

    print("timing a few training steps on this machine", file=sys.stderr, flush=True)
    asked = {"tree": str(place.tree), "side_px": side, "classes": 10}
    command = [sys.executable, "-P", "-m", "fettle.recipes.training_probe"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, check=False,
            cwd=place.tree, timeout=PROBE_LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode != 0:
        said = "no answer in time" if done is None else done.stderr.strip().splitlines()[-1:]
        raise OurFault(
            "the probe of this machine's training failed",
            got=str(said),
            fix="run without --budget and --dry-run; the run itself will say what is wrong",
        )
    return float(json.loads(done.stdout.splitlines()[-1])["image_s"])
