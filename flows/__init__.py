"""Prefect flows: when, in what order, how often again, and when to stop; nothing else."""
