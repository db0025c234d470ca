"""x86 CPU, ONNX Runtime, int8: unsigned activations, signed per-channel weights (U8S8)."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="ort",
    precision="int8",
    dialect="qdq_u8s8",
    channel_multiple=8,
)
