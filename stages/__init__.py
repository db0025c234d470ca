"""THE COOKBOOK: one stage = one file = one node of dvc.yaml; `python -m stages NAME` runs one."""
