"""Arm Ethos-U55, 128 MACs, 2 MiB of SRAM as Corstone-300 has, weights in flash: estimated."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="Arm Ethos-U55-128",
    family="NPU: Arm Ethos-U",
    machine=("cortex-m",),
    runtime="vela",
    precision="int8",
    dialect="litert",
    channel_multiple=16,
    evidence="estimated",
    device="--accelerator-config ethos-u55-128 --config Arm/vela.ini "
    "--system-config Ethos_U55_High_End_Embedded "
    "--memory-mode Shared_Sram --arena-cache-size 2097152",
    next_command="link model_vela.tflite into your firmware with Arm's ethos-u-core-driver, or "
    "run it in the Corstone-300 simulator with ml-inference-runner",
)
