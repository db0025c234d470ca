"""AMD GPU, IREE, 32-bit floats: compiled for gfx942; its ELF code is of that machine."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="AMD GPU (gfx942, Instinct MI300)",
    family="AMD GPU",
    machine=("x86_64",),
    runtime="iree",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
    evidence="compile-only",
    device="rocm",
    next_command="iree-run-module --device=hip --module=model.vmfb --input=@image.npy",
)
