"""NVIDIA GPU, TensorRT, 32-bit floats: an ONNX in its form, audited; trtexec builds the engine."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="NVIDIA GPU (TensorRT 10 and later)",
    family="NVIDIA GPU",
    machine=("x86_64", "aarch64"),
    runtime="tensorrt",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
    evidence="compile-only",
    next_command="trtexec --onnx=model.onnx --saveEngine=model.plan",
)
