"""One file a measurement of the served release: WHAT is measured, and `run(context)` → its rows.

A row file has `WHAT` (a line for `--help`), `GOAL` (the row's goal in words) and
`run(context: serve.Context) -> list[BenchmarkRow]`. What cannot be measured here (a tool is
missing) is returned as `benchmark_row.not_measured(…)`, never left out and never guessed.
"""
