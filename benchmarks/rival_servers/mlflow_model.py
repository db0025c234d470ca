"""Save the release as an MLflow pyfunc for `mlflow models serve`: `python mlflow_model.py OUT`."""

from __future__ import annotations

import sys
from typing import Any

import mlflow
from model import Model


class Release(mlflow.pyfunc.PythonModel):
    """A model whose input is an array [N, H, W]."""

    def load_context(self, context: Any) -> None:
        """Load the model in each worker."""
        del context
        self.model = Model()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Answer one request."""
        del context, params
        return self.model(model_input)


if __name__ == "__main__":
    mlflow.pyfunc.save_model(path=sys.argv[1], python_model=Release())
