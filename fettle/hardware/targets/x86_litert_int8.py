"""x86 CPU, LiteRT with XNNPACK, whole int8: the file that phones run, timed here."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="litert",
    precision="int8",
    dialect="litert",
    channel_multiple=8,
)
