"""Isolated toolchains: each in its own environment, behind a worker process (toolchain.py)."""
