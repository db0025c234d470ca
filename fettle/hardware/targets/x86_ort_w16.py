"""x86 CPU, ONNX Runtime, float16 weights alone: half of the file at fp32's speed."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="ort",
    precision="w16",
    dialect=None,
    channel_multiple=8,
)
