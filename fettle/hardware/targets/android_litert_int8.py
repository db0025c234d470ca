"""Android phone, LiteRT with XNNPACK, whole int8; answers by the same file on this CPU.

Emulated: the very file is run here by the same runtime's x86 kernels, so its answers are known and
no phone's latency is.
"""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="Android phone (Arm CPU)",
    family="mobile",
    machine=("aarch64",),
    runtime="litert",
    precision="int8",
    dialect="litert",
    channel_multiple=8,
    evidence="emulated",
    next_command="adb push model.tflite /data/local/tmp/ && adb shell "
    "/data/local/tmp/benchmark_model --graph=/data/local/tmp/model.tflite --num_threads=1 "
    "--use_xnnpack=true",
)
