"""Quantizers, one file each; fettle/hardware/precisions.py names the one of each precision."""
