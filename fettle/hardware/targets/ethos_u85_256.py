"""Arm Ethos-U85, 256 MACs, 384 KiB of SRAM of its own, the rest in DRAM: estimated."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="Arm Ethos-U85-256",
    family="NPU: Arm Ethos-U",
    machine=("cortex-m",),
    runtime="vela",
    precision="int8",
    dialect="litert",
    channel_multiple=16,
    evidence="estimated",
    device="--accelerator-config ethos-u85-256 --config Arm/vela.ini "
    "--system-config Ethos_U85_SYS_DRAM_Mid "
    "--memory-mode Dedicated_Sram --arena-cache-size 393216",
    next_command="link model_vela.tflite into your firmware with Arm's ethos-u-core-driver, or "
    "run it in the Corstone-320 simulator with ml-inference-runner",
)
