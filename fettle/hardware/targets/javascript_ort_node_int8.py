"""JavaScript on a server, ONNX Runtime for Node.js, int8: timed in Node.js on this machine."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="this machine's CPU from JavaScript (Node.js)",
    family="Node.js",
    machine=("x86_64", "AMD64", "aarch64", "arm64"),
    runtime="ort_node",
    precision="int8",
    dialect="qdq_u8s8",
    channel_multiple=8,
    evidence="measured",
    next_command="npm install --ignore-scripts onnxruntime-node@1.30.0, then load model.onnx",
)
