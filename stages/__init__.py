"""Pipeline stages: one stage = one file = one node of dvc.yaml; `fettle stage NAME` runs one."""
