"""x86 CPU with AVX512-BF16 or AMX, OpenVINO, bfloat16: no calibration, 8 bits of precision."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="openvino",
    precision="bf16",
    dialect=None,
    channel_multiple=8,
)
