"""Quantization of a finished ONNX graph: what `export` does for a target's precision.

quantizers/                one file a quantizer (plug-ins: a precision's `quantizer`)

int8_dialects              what one hardware family takes and another refuses
int8_layout, float_bias    what an int8 file looks like, whatever its ranges
static_int8                that layout with ranges from training images
uncalibrated_int8          that layout with ranges from noise: for the latency table's kernels
activation_ranges          ranges of all tensors, by several methods in one run
bias_correction, gptq      errors of rounding made up for
float_fallback             layers that go back to float: which, how many, and the surgery
qdq_graph, graph_cleanup   reading and editing the graph
"""
