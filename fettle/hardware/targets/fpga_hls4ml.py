"""FPGA, hls4ml, fixed point: C++ for HLS, run bit by bit as the circuit computes; small models."""

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="FPGA (AMD Zynq XC7Z020)",
    family="FPGA",
    machine=("armv7l",),
    runtime="hls4ml",
    precision="fixed",
    dialect="ap_fixed",
    channel_multiple=1,
    evidence="emulated",
    device="xc7z020clg400-1",
    next_command="cd project && vitis_hls -f build_prj.tcl",
)
