"""x86 CPU, OpenVINO, int8: reads the same U8S8 QDQ file as ONNX Runtime."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="x86 CPU",
    family="x86 CPU",
    machine=("x86_64", "AMD64"),
    runtime="openvino",
    precision="int8",
    dialect="qdq_u8s8",
    channel_multiple=8,
)
