"""NVIDIA GPU, IREE, 32-bit floats: PTX for sm_80 and later, assembled by ptxas where it is."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="NVIDIA GPU (sm_80 and later)",
    family="NVIDIA GPU",
    machine=("x86_64", "aarch64"),
    runtime="iree",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
    evidence="compile-only",
    device="cuda",
    next_command="iree-run-module --device=cuda --module=model.vmfb --input=@image.npy",
)
