"""NVIDIA GPU, TensorRT, int8: an ONNX in its form, audited; trtexec builds the engine."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="NVIDIA GPU (TensorRT 10 and later)",
    family="NVIDIA GPU",
    machine=("x86_64", "aarch64"),
    runtime="tensorrt",
    precision="int8",
    dialect="qdq_s8s8_symmetric",
    channel_multiple=8,
    evidence="compile-only",
    next_command="trtexec --onnx=model.onnx --saveEngine=model.plan",
)
