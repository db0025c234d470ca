"""JavaScript on a server, ONNX Runtime for Node.js, 32-bit floats: timed in Node.js here."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="this machine's CPU from JavaScript (Node.js)",
    family="Node.js",
    machine=("x86_64", "AMD64", "aarch64", "arm64"),
    runtime="ort_node",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
    evidence="measured",
    next_command="npm install --ignore-scripts onnxruntime-node@1.30.0, then load model.onnx",
)
