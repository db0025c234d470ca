"""x86 CPU, IREE, 32-bit floats: compiled ahead of time by LLVM for the CPU it is compiled on."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="iree",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
)
