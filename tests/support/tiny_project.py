"""Seal a tiny project as the first stages leave it: images, a float model, a compressed model."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sample_facts
import tiny_onnx
from PIL import Image
from safetensors.numpy import save_file

from fettle import manifest, params
from fettle.data import image_table
from fettle.facts.typed_document import TypedDocument
from fettle.hardware import machine_fingerprint
from fettle.hardware.runtimes import ort
from fettle.measure import Measure
from fettle.params import Params
from fettle.preprocessing import Preprocess
from fettle.stage_contract import Inputs

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["left", "middle", "right"]  # sorted, as the model's outputs are
COUNTS = {"train": 48, "validation": 60, "test": 90}
SETTINGS = (
    "preprocess.size_px=8",
    "evaluate.rounds=20",
    "evaluate.batch_images=4",
    "evaluate.parity_images=30",
    "export.calibration_images=48",
    "export.calibrate=minmax",
)


def settings(*overrides: str) -> Params:
    """Read the repository's params.yaml with a tiny model's sizes."""
    return params.load(ROOT / "params.yaml", [*SETTINGS, *overrides])


def pixels(
    count: int, *, seed: int, noise: float = 0.35
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Images uint8 [count, 1, 8, 8]; image i shows class i % 3 of the sorted names."""
    drawn = tiny_onnx.images(count, seed=seed, noise=noise)
    return ((drawn + 1) * 127.5).round().astype(np.uint8)


class TinyProject:
    """The folder, the sealed artefacts, and the digests to hand on."""

    def __init__(self, root: Path, *, noise: float = 0.35, width: int = 8, slim: int = 4) -> None:
        self.root = root
        self._write_data(noise)
        manifest.write_json(root / "inputs" / "machine.json", machine_fingerprint.fingerprint())
        for stage, wide in (("finetune", width), ("compress", slim)):
            tiny_onnx.classifier(self.folder(stage) / "model.onnx", width=wide)
        self.write_reference()
        facts = {"classes": CLASSES, "trains": False}
        self.seal("finetune", facts=facts)
        self.seal("compress", facts=facts)

    def folder(self, address: str) -> Path:
        path = self.root / "artifacts" / address.replace("@", "/")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def seal(
        self,
        address: str,
        *,
        facts: Mapping[str, object] | TypedDocument | None = None,
        measures: dict[str, Measure] | None = None,
        made_of: Sequence[str] = (),
    ) -> None:
        manifest.write(
            self.folder(address),
            address,
            inputs={above: manifest.read(self.folder(above)).digest for above in made_of},
            measures=measures or {},
            facts=sample_facts.of(address, facts),
        )

    def inputs(self, *reads: str, target: str | None = None) -> Inputs:
        """Name folders as stages/__main__.py does: "export" of a target, "export@x" of all."""
        folders = {
            read: self.folder(f"{read}/{target}" if read == "export" else read) for read in reads
        }
        return Inputs(folders, self.root, self.root / ".fettle" / "scratch", target)

    def write_reference(self) -> None:
        """Keep the compressed model's own answers to the first validation images."""
        given = pixels(COUNTS["validation"], seed=1)[:40]
        session = ort.open(self.folder("compress") / "model.onnx", threads=1)
        logits = session.run(Preprocess(size_px=8, channels=1, mean=0.5, std=0.5).normalise(given))
        save_file(
            {"input_pixels": given, "logits": logits},
            self.folder("compress") / "reference.safetensors",
        )

    def _write_data(self, noise: float) -> None:
        rows = []
        for seed, (split, count) in enumerate(COUNTS.items()):
            for index, one in enumerate(pixels(count, seed=seed, noise=noise)):
                buffer = io.BytesIO()
                Image.fromarray(one[0]).save(buffer, "PNG")
                row = dict.fromkeys(image_table.SCHEMA.names)
                row |= {"row": f"{split}-{index:03d}", "label": CLASSES[index % 3], "split": split}
                encoded = buffer.getvalue()
                digest = hashlib.sha256(encoded).hexdigest()
                rows.append({**row, "bytes": encoded, "sha256": digest})
        table = pa.Table.from_pylist(rows, image_table.SCHEMA)
        pq.write_table(table, self.folder("ingest") / image_table.IMAGES)
        passed = pa.table({"row": table["row"]})
        pq.write_table(passed, self.folder("validate") / image_table.ROWS)
        self.seal("ingest")
        self.seal("validate")
