"""x86 CPU, ONNX Runtime, fp32: the plain target that every other must beat in speed or size."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="ort",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
)
