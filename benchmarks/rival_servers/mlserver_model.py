"""Serve the release with MLServer: its V2 protocol in, the answer as one JSON string out."""

from __future__ import annotations

import json

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import Model


class Release(MLModel):
    """A model whose input is UINT8 [N, H, W]."""

    async def load(self) -> bool:
        """Load the model in each worker."""
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        images = NumpyCodec.decode_input(payload.inputs[0])
        text = json.dumps(self.model(images))
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("answer", [text])]
        )
