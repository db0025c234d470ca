"""Qualcomm Hexagon NPU, int8: run by QNN's x86 emulator, with no fallback to the CPU."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="Qualcomm Hexagon NPU (Snapdragon X Elite, HTP v75)",
    family="Qualcomm NPU",
    machine=("aarch64", "ARM64"),
    runtime="qnn",
    precision="int8",
    dialect="qdq_u8s8_whole",
    channel_multiple=32,
    evidence="emulated",
    device="x86 emulator",
    next_command="pip install onnxruntime-qnn, then open model.onnx with ONNX Runtime's QNN "
    "provider and session.disable_cpu_ep_fallback=1",
)
