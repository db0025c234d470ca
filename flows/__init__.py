"""THE CLOCK: Prefect says when, in what order, how often again, and when to stop; nothing else."""
