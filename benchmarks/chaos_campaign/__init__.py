"""Fault campaign: random faults against a served project, and what must hold after each of them."""
