"""Models: the networks that can be fine-tuned, the user's own among them, and their ONNX export.

families/          one file a model family (plug-ins: `finetune.family`)

user_code, pretrained_weights      what the user brings: a module, its weights
onnx_checks, onnx_rewriting        an ONNX file that is taken as it is
torch_blocks                       layers that the families share
input_record, input_size           what a family wants as its input, and the side that `auto` gives
export_onnx                        a torch module as fp32 ONNX, with a parity check
"""
