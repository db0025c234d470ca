"""MLflow's python model of a release: answers images with the release's own code, as its server.

MLflow copies this file beside the release (fettle/adapters/mlflow_model.py) and runs it wherever
the model is loaded, so it needs no fettle but the one in the release.

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    model.predict([open("photo.jpg", "rb").read()])

takes encoded images (JPEG, PNG, …), as a list or as the only column of a frame, and returns a frame
of a row an image: `label`, `probability`, `top` (the likeliest classes); of an image that cannot be
read, `error` alone.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

TOP = 5  # as many classes as the server's answer has (fettle/serving/predict_route.py)


class ReleaseModel(PythonModel):  # type: ignore[misc]  # MLflow ships no types
    """A release as MLflow's python model."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify the release and load its model, by the code that it carries."""
        release = Path(context.artifacts["release"])
        with carried_code(release):
            self._request = importlib.import_module("fettle.serving.image_request")
            bundle = importlib.import_module("fettle.serving.release_bundle")
            self._loaded = bundle.load(release)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: object = None
    ) -> pd.DataFrame:
        """Answer each image of the only column, in order."""
        del context, params
        rows = [self._answer(bytes(encoded)) for encoded in model_input.iloc[:, 0]]
        return pd.DataFrame(rows, columns=["label", "probability", "top", "error"])

    def _answer(self, encoded: bytes) -> dict[str, object]:
        try:
            pixels = self._request.from_files([encoded], self._loaded.preprocess)
        except self._request.BadRequest as err:
            return {"error": str(err)}
        best = self._loaded.rank(pixels, most=TOP)[0]
        top = [
            {"label": self._loaded.labels[at], "probability": chance}
            for at, chance in zip(best.classes, best.probabilities, strict=True)
        ]
        return {**top[0], "top": top}


@contextmanager
def carried_code(release: Path) -> Iterator[None]:
    """Let `fettle` be the code that a release carries, whatever version is imported already."""
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if _ours(name)}
    sys.path.insert(0, str(release))
    try:
        yield
    finally:
        sys.path.remove(str(release))
        for name in list(sys.modules):
            if _ours(name):
                del sys.modules[name]
        sys.modules.update(others)


def _ours(name: str) -> bool:
    return name == "fettle" or name.startswith("fettle.")


set_model(ReleaseModel())
