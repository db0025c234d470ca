"""Simulated canary rollouts: worlds to roll out in, our rules and others' to judge them by."""
