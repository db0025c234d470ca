"""Save the release as an MLflow pyfunc for `mlflow models serve`: `python mlflow_model.py OUT`."""

from __future__ import annotations

import sys
from typing import Any

import mlflow
from model import Model


class Release(mlflow.pyfunc.PythonModel):
    """A model whose input is an array [N, H, W]."""

    def load_context(self, context: object) -> None:
        """Load the model in each worker."""
        del context
        self.model = Model()

    def predict(self, context: object, model_input: Any) -> Any:  # type: ignore[explicit-any]  # MLflow reads a schema here
        """Answer one request."""
        del context
        return self.model(model_input)


if __name__ == "__main__":
    mlflow.pyfunc.save_model(path=sys.argv[1], python_model=Release())
