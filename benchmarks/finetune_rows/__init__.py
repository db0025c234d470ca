"""Parts of the fine-tuning benchmark: the data sets, and the plain script beside ours."""
