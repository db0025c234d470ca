"""x86 CPU, OpenVINO, fp32 (its silent bf16 default switched off)."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="openvino",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
)
