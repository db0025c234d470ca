"""One file a subject: WHAT, GOAL and run(context) -> rows; see benchmarks/compress.py."""
