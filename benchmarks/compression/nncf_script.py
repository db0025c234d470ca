"""Quantize an ONNX with NNCF in its own environment (see fettle/hardware/isolated)."""

import time

import nncf
import numpy as np
import openvino as ov


def quantize(model, calibration, validation, out, drop_max):  # JSON
    """Quantize `model` (ONNX) to `out` (IR); answer the seconds it took.

    `calibration` and `validation` are .npz files with images and labels; without `drop_max` it is
    plain quantization, with it NNCF's accuracy control.
    """
    model = ov.Core().read_model(model)
    calibration = np.load(calibration)["images"]
    validation = np.load(validation)
    singles = nncf.Dataset([calibration[at : at + 1] for at in range(len(calibration))])
    started = time.perf_counter()
    if drop_max is None:
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
            max_drop=drop_max,
            subset_size=len(calibration),
        )
    seconds = time.perf_counter() - started
    ov.save_model(made, out, compress_to_fp16=False)
    return {"seconds": seconds}
