"""Write tests/golden/tiny_int8.tflite and its answers: what LiteRT's toolchain made once.

Needs `fettle targets install litert`. A test runs the committed file, and compares: so a change in
LiteRT's kernels shows in seconds, without a conversion. Run it again when the converter changes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "golden" / "tiny_int8.tflite"
IMAGES = 24


def main() -> None:
    """Compile the tests' tiny classifier, and keep its file and what it answers."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    import tiny_onnx

    from fettle.hardware.runtimes import CompileRequest, litert

    request = CompileRequest(
        device="", precision="int8", dialect="litert", calibration=tiny_onnx.images(48)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_onnx.classifier(folder / "given.onnx")
        entry = folder / litert.compile_for(model, folder, request=request)
        OUT.write_bytes(entry.read_bytes())
    session = litert.open(OUT, threads=1)
    logits = session.run(tiny_onnx.images(IMAGES, seed=1))
    np.save(OUT.with_suffix(".npy"), logits)
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size:,} bytes, {len(logits)} answers")


if __name__ == "__main__":
    main()
