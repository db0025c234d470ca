"""fettle trims a pretrained model until it fits: a small, fast, gated release."""
