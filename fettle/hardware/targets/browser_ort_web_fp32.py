"""Web browser, ONNX Runtime in WebAssembly, 32-bit floats: answered under Node.js."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="web browser (WebAssembly)",
    family="web browser",
    machine=("x86_64", "AMD64", "aarch64", "arm64"),
    runtime="ort_web",
    precision="fp32",
    dialect=None,
    channel_multiple=8,
    evidence="emulated",
    next_command="python -m http.server in the release's folder, then open "
    "targets/browser_ort_web_fp32/index.html",
)
