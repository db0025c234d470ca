"""64-bit RISC-V CPU, IREE, 32-bit floats: compiled; the ELF code in it is of that machine."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="riscv64 CPU (RV64GC)",
    family="riscv64 CPU",
    machine=("riscv64",),
    runtime="iree",
    precision="fp32",
    dialect=None,
    channel_multiple=4,
    evidence="compile-only",
    device="riscv64",
    next_command="iree-run-module --device=local-task --module=model.vmfb --input=@image.npy",
)
