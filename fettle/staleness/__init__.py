"""Staleness: which code, data and packages a stage depends on, so that DVC runs just what changed.

code_digest                inputs/code/STAGE[/TARGET].json: a digest for each function reached
reachability               what an entry can reach, plug-ins that the params name among it
source_symbols, source_index       one file as symbols; all files, read again when they change
input_history              versions kept, so that `fettle why` names the function that changed
"""
