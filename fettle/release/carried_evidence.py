"""Evidence that a release carries: what its figures are derived from again, without the project.

    evidence/STAGE.json                    the manifest of each artefact that it was made of, as it
                                           was sealed: its sha256 is the artefact's digest, by which
                                           the manifests of later stages name it
    evidence/choice.json                   what select chose from
    evidence/test_answers.parquet          one row a test image: row, sha256 of its bytes, label,
                                           and the answers of the float model and of the released
                                           file
    evidence/verdicts.jsonl                the ledger's lines on these test images
    evidence/validation_answers.parquet    the same of the float model and every measured target, on
                                           the validation images in their order

An answer is two columns: MODEL.predicted (a class, as the file's labels are) and MODEL.probability.
No figure of a release needs more: one of a thousand classes carries no more than one of two.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from fettle import manifest
from fettle.errors import UserError
from fettle.evaluation import accuracy_statistics
from fettle.evaluation.accuracy_statistics import Doubles, Labels
from fettle.facts.evaluate_facts import ANSWERS
from fettle.facts.select_facts import CHOICE
from fettle.facts.typed_document import TypedDocument
from fettle.manifest import File, Manifest
from fettle.measure import Measure
from fettle.release import verdict_ledger

Model = TypeVar("Model", bound=TypedDocument)

FOLDER = "evidence"
TEST = "test_answers.parquet"
VALIDATION = "validation_answers.parquet"
FLOAT = "float"  # the model's name in test answers
SHIPPED = "shipped"
FIX = "take the release from where it was published, or make it again with `fettle run`"
BASELINE = "baseline"  # the float model's in validation answers


@dataclass(frozen=True, slots=True)
class RecordedAnswers:
    """Recorded answers to the same images: labels int [n], rows by model, float64 [n, classes]."""

    rows: tuple[str, ...]
    labels: Labels
    models: Mapping[str, Doubles]


def write(release: Path, folders: Mapping[str, Path]) -> None:
    """Write evidence/ of a release from its artefacts, {"export@x86_ort_fp32": folder}."""
    place = release / FOLDER
    place.mkdir()
    for address, folder in folders.items():
        shutil.copyfile(folder / manifest.NAME, place / f"{address}.json")
    shutil.copyfile(folders["select"] / CHOICE, place / CHOICE)
    shutil.copyfile(folders["verdict"] / verdict_ledger.NAME, place / verdict_ledger.NAME)
    _write_test_answers(folders["verdict"] / "predictions.parquet", place / TEST)
    measured = {
        address.partition("@")[2]: folder / ANSWERS
        for address, folder in folders.items()
        if address.startswith("evaluate@") and (folder / ANSWERS).is_file()
    }
    if measured:
        _write_validation_answers(measured, place / VALIDATION)


def _write_test_answers(predictions: Path, file: Path) -> None:
    """Reduce the verdict's predictions to what a figure needs: they name their classes."""
    table = pq.read_table(predictions)
    columns: dict[str, object] = {name: table[name] for name in ("row", "sha256", "label")}
    for model, prefix in ((FLOAT, "float_"), (SHIPPED, "")):
        columns[f"{model}.predicted"] = table[f"{prefix}predicted"]
        columns[f"{model}.probability"] = table[f"{prefix}probability"]
    pq.write_table(pa.table(columns), file)


def _write_validation_answers(measured: Mapping[str, Path], file: Path) -> None:
    columns: dict[str, object] = {}  # arrow takes each column's own type
    for target, path in measured.items():
        kept = load_file(path)
        columns.setdefault("label", kept["labels"])
        models = {BASELINE: kept["baseline"], target: kept["candidate"]}
        for model, logits in models.items():
            chances = accuracy_statistics.probabilities(logits)
            columns[f"{model}.predicted"] = chances.argmax(axis=1)
            columns[f"{model}.probability"] = chances.max(axis=1)
    pq.write_table(pa.table(columns), file)


def read_manifest(release: Path, address: str, facts: type[Model]) -> Manifest[Model]:
    """Read a carried manifest, its facts as the model `facts`.

    Raises ProjectError when the facts do not fit, UserError when there is no such manifest or its
    text is not as a stage writes it, which its digest is of.
    """
    path = release / FOLDER / f"{address}.json"
    try:
        text = path.read_text()
        doc = json.loads(text)
        sealed = Manifest(
            stage=doc["stage"],
            files=tuple(File(**file) for file in doc["files"]),
            inputs=doc["inputs"],
            measures={name: Measure.from_dict(m) for name, m in doc["measures"].items()},
            facts=facts.from_json(doc["facts"], path, key="facts"),
        )
        if sealed.to_json() != text:
            raise ValueError("it is not written as a stage writes it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise UserError(
            f"{FOLDER}/{address}.json of the release cannot be read",
            got=f"{type(err).__name__}: {err}",
            rule="it is the manifest of an artefact, byte for byte",
            fix=FIX,
        ) from err
    return sealed


def file_digest(release: Path, address: str, path: str) -> str | None:
    """Return the sha256 by which a carried manifest lists a file, None where it lists none."""
    doc = json.loads((release / FOLDER / f"{address}.json").read_text())
    return next((str(file["sha256"]) for file in doc["files"] if file["path"] == path), None)


def read_image_digests(release: Path) -> list[str] | None:
    """Read the sha256 of each test image; None of a release that states none."""
    file = release / FOLDER / TEST
    if "sha256" not in pq.read_schema(file).names:
        return None
    return [str(one) for one in pq.read_table(file, columns=["sha256"])["sha256"].to_pylist()]


def read_test(release: Path, classes: tuple[str, ...]) -> RecordedAnswers:
    """Read the answers to the test images. Raises UserError when there are none, or no such."""
    number = {name: index for index, name in enumerate(classes)}
    return _read(release / FOLDER / TEST, (FLOAT, SHIPPED), number, len(classes))


def read_validation(release: Path, targets: tuple[str, ...], classes: int) -> RecordedAnswers:
    """Read the answers of these targets to the validation images; as `read_test`."""
    return _read(release / FOLDER / VALIDATION, (BASELINE, *targets), None, classes)


def _read(
    file: Path, models: tuple[str, ...], number: Mapping[str, int] | None, classes: int
) -> RecordedAnswers:
    try:
        columns = pq.read_table(file).to_pydict()

        def numbers(name: str) -> Labels:
            given = columns[name]
            return np.asarray([number[one] for one in given] if number else given, dtype=np.int64)

        answers = {
            model: _spread(
                numbers(f"{model}.predicted"),
                np.asarray(columns[f"{model}.probability"], dtype=np.float64),
                classes,
            )
            for model in models
        }
        labels = numbers("label")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError("a label is no class's number")
        rows = tuple(str(row) for row in columns.get("row", ()))
        return RecordedAnswers(rows, labels, answers)
    except (OSError, KeyError, ValueError, TypeError, IndexError, pa.ArrowException) as err:
        raise UserError(
            f"{FOLDER}/{file.name} of the release cannot be read",
            got=f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else 'no text'}",
            rule="it has the answers of each model, a class and its probability an image",
            fix=FIX,
        ) from err


def _spread(predicted: Labels, probability: Doubles, classes: int) -> Doubles:
    """Return rows whose largest probability is this one, at this class; the rest is shared out."""
    if not ((probability > 0) & (probability <= 1)).all() or not len(predicted):
        raise ValueError("a probability lies above 0 and is at most 1")
    others = (1 - probability) / max(1, classes - 1)
    # a tie would be the first class's: what shares the rest stays below it
    others = np.minimum(others, np.nextafter(probability, 0))
    rows = np.repeat(others[:, None], classes, axis=1)
    if predicted.min() < 0:
        raise ValueError("a class's number is not below 0")
    rows[np.arange(len(rows)), predicted] = probability
    return rows
