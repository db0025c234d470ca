"""Facts that stages hand over, as frozen models: one file a stage, with its JSON files.

    ingest_facts, validate_facts, finetune_facts, latency_table_facts, compress_facts
    (search_document: search.json), export_facts, evaluate_facts, select_facts, verdict_facts,
    package_facts       what `stages/NAME.py` writes, and what every reader gets
    asked_goal, answer_parity   what two stages say alike
    last_run            `.fettle/last.json`, the last finished run
    typed_document      how a model is written and read, and what a file that does not fit says

`facts` of a manifest is written and read as NAMEFacts; a Measure stands beside the facts. A key
with a default may be left out, and stays out; None is a value.
"""
