"""64-bit ARM CPU, ONNX Runtime, fp32: answered by its own aarch64 wheel under qemu-user."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="64-bit ARM CPU",
    family="ARM CPU",
    machine=("aarch64", "arm64"),
    runtime="ort_arm64",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
    evidence="emulated",
    next_command="scp -r targets/arm64_ort_fp32 BOARD: && ssh BOARD pip install onnxruntime",
)
