"""Web browser, ONNX Runtime in WebAssembly, int8: answered under Node.js."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="web browser (WebAssembly)",
    family="web browser",
    machine=("x86_64", "AMD64", "aarch64", "arm64"),
    runtime="ort_web",
    precision="int8",
    dialect="qdq_u8s8",
    channel_multiple=8,
    evidence="emulated",
    next_command="python -m http.server in the release's folder, then open "
    "targets/browser_ort_web_int8/index.html",
)
