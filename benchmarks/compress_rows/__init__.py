"""One file a subject: WHAT, GOAL and run(context) -> list[Row]; see benchmarks/compress.py."""
