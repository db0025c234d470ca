"""64-bit Arm CPU, IREE, 32-bit floats: run by its arm64 runtime under qemu-user."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="arm64 CPU (Cortex-A72 and later)",
    family="arm64 CPU",
    machine=("aarch64", "arm64"),
    runtime="iree",
    precision="fp32",
    dialect=None,
    channel_multiple=4,
    evidence="emulated",
    device="arm64",
    next_command="iree-run-module --device=local-task --module=model.vmfb --input=@image.npy",
)
