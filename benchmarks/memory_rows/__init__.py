"""What benchmarks.memory measures on: made photos, and 50 steps of training on them."""
