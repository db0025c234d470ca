"""MLflow model of a release: the folder that the registry holds, with signature and example.

    MLmodel, python_env.yaml, requirements.txt     MLflow's own
    mlflow_pyfunc.py                               fettle/adapters/mlflow_pyfunc.py
    artifacts/DIGEST/                              the release, byte for byte: it verifies itself

A release's bytes lie in the project's releases/DIGEST and, once, among the files of the MLflow run
that registered it: a registry is read from other machines. The folder made here is temporary.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).with_name("mlflow_pyfunc.py")


def save(release: Path, folder: Path) -> None:
    """Write the model of a release to `folder`, which is not there yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own imports warn under newer pydantic
        import pandas as pd
        from mlflow import pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

        text, number = DataType.string, DataType.double
        ranked = Array(Object([Property("label", text), Property("probability", number)]))
        signature = ModelSignature(
            inputs=Schema([ColSpec(DataType.binary)]),
            outputs=Schema(
                [
                    ColSpec(text, "label", required=False),
                    ColSpec(number, "probability", required=False),
                    ColSpec(ranked, "top", required=False),
                    ColSpec(text, "error", required=False),
                ]
            ),
        )
        pyfunc.save_model(
            str(folder),
            python_model=str(SCRIPT),
            artifacts={"release": str(release)},
            signature=signature,
            input_example=pd.DataFrame({"image": [_example(release)]}),
            pip_requirements=_requirements(release),
        )


def _requirements(release: Path) -> list[str]:
    """Return what the release is locked to: with it, MLflow guesses nothing and asks no index."""
    file = release / "requirements.txt"
    return file.read_text().splitlines() if file.is_file() else []


def _example(release: Path) -> bytes:
    """Draw a grey image of the size that the release takes."""
    file = release / "preprocess.json"
    size_px = json.loads(file.read_text())["size_px"] if file.is_file() else 32
    height, width = size_px if isinstance(size_px, list) else (size_px, size_px)
    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "PNG")
    return buffer.getvalue()
