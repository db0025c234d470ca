"""Quantize an ONNX with NNCF in its own environment: one JSON request on stdin, one answer out.

Request: model (ONNX), calibration and validation (.npz with images, labels), out (IR), drop_max
(None: plain quantization). Answer: seconds, and with drop_max the accuracies that NNCF saw.
"""

import json
import sys
import time

import nncf
import numpy as np
import openvino as ov


def main() -> None:
    """Serve the one request."""
    request = json.loads(sys.stdin.read())
    model = ov.Core().read_model(request["model"])
    calibration = np.load(request["calibration"])["images"]
    validation = np.load(request["validation"])
    singles = nncf.Dataset([calibration[at : at + 1] for at in range(len(calibration))])
    started = time.perf_counter()
    if request["drop_max"] is None:
        made = nncf.quantize(model, singles, subset_size=len(calibration))
    else:
        pairs = list(zip(validation["images"][:, None], validation["labels"], strict=True))

        def accuracy(compiled, data):  # NNCF passes what transform_func makes
            # its ranking steps hand over a subset, in the same form
            right = [int(compiled(x)[0].argmax() == y) for x, y in data]
            return float(np.mean(right)), [float(one) for one in right]

        made = nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=singles,
            validation_dataset=nncf.Dataset(pairs),
            validation_fn=accuracy,
            max_drop=request["drop_max"],
            subset_size=len(calibration),
        )
    seconds = time.perf_counter() - started
    ov.save_model(made, request["out"], compress_to_fp16=False)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
