"""Compression of a torch module: pruning, distillation, low rank (ONNX: fettle/quantize).

techniques/                one file a technique (plug-ins: `compress.recipe[].use`)
technique.py               what a technique offers, and what it is given

compression_plan           what was cut, as data: re-applied to a fresh network
channel_groups, channel_importance, removable_blocks       what can go, and what is missed least
sensitivity_analysis       the loss after each cut, before any training
layer_costs, torch_operators                               parameters, multiply-accumulates
"""
