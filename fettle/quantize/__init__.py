"""Quantization of a finished ONNX graph: what `export` does for a target's precision.

quantizers/                one file a quantizer (plug-ins: a precision's `quantizer`)

int8_calibration           images in, the method and the float layers chosen by measurement
activation_ranges          ranges of all tensors, by several methods in one run
bias_correction, gptq      errors of rounding made up for
float_fallback             layers that go back to float: which, how many, and the surgery
qdq_graph, graph_cleanup   reading and editing the graph
"""
