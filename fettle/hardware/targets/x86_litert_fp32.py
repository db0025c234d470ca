"""x86 CPU, LiteRT with XNNPACK, 32-bit floats: the file that phones run, timed here."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="litert",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
)
