"""Serve the release with LitServe: `python lit.py PORT`; JSON in, batches of up to 32."""

import sys

import litserve
import numpy as np
import numpy.typing as npt
from model import Answer, Model

WORKERS = 2


class Api(litserve.LitAPI):
    """Decode a JSON array of one image; answer a batch."""

    def setup(self, device: str) -> None:
        """Load the model in each worker."""
        del device
        self.model = Model()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # untyped: parsed JSON
        """Return uint8 [H, W]."""
        return np.asarray(request, dtype=np.uint8)

    def batch(self, inputs: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """Stack [H, W] to [N, H, W]."""
        return np.stack(inputs)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """Give each its answer."""
        return output

    def predict(self, batch: npt.NDArray[np.uint8]) -> list[Answer]:
        """Answer the batch."""
        found: list[Answer] = self.model(batch)
        return found

    def encode_response(self, output: Answer) -> list[Answer]:
        """Answer as fettle does: a list of one."""
        return [output]


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=32, batch_timeout=0.0),
        accelerator="cpu",
        workers_per_device=WORKERS,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
