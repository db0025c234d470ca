"""Quantize an ONNX with NNCF in its own environment (see fettle/hardware/isolated)."""

import time

import nncf
import numpy as np
import openvino as ov


def quantize(
    model: str, calibration: str, validation: str, out: str, drop_max: float | None
) -> dict[str, float]:
    """Quantize `model` (ONNX) to `out` (IR); answer the seconds it took.

    `calibration` and `validation` are .npz files with images and labels; without `drop_max` it is
    plain quantization, with it NNCF's accuracy control.
    """
    network = ov.Core().read_model(model)
    images = np.load(calibration)["images"]
    held_out = np.load(validation)
    singles = nncf.Dataset([images[at : at + 1] for at in range(len(images))])
    started = time.perf_counter()
    if drop_max is None:
        made = nncf.quantize(network, singles, subset_size=len(images))
    else:
        pairs = list(zip(held_out["images"][:, None], held_out["labels"], strict=True))

        def accuracy(compiled, data):  # type: ignore[no-untyped-def]  # NNCF passes what transform_func makes
            # its ranking steps hand over a subset, in the same form
            right = [int(compiled(x)[0].argmax() == y) for x, y in data]
            return float(np.mean(right)), [float(one) for one in right]

        made = nncf.quantize_with_accuracy_control(
            network,
            calibration_dataset=singles,
            validation_dataset=nncf.Dataset(pairs),
            validation_fn=accuracy,
            max_drop=drop_max,
            subset_size=len(images),
        )
    seconds = time.perf_counter() - started
    ov.save_model(made, out, compress_to_fp16=False)
    return {"seconds": seconds}
