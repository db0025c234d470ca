"""x86 CPU, ONNX Runtime, linear layers in int8, ranges found at each run: no calibration."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="ort",
    precision="dynamic_int8",
    dialect=None,
    channel_multiple=8,
)
