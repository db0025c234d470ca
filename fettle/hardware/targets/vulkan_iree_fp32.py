"""Vulkan GPU, IREE, 32-bit floats: SPIR-V for what every Android phone of 2022 has."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="Vulkan GPU (Android baseline 2022)",
    family="Vulkan GPU",
    machine=("aarch64", "arm64", "x86_64"),
    runtime="iree",
    precision="fp32",
    dialect=None,
    channel_multiple=4,
    evidence="compile-only",
    device="vulkan",
    next_command="iree-run-module --device=vulkan --module=model.vmfb --input=@image.npy",
)
