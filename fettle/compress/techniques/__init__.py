"""Compression techniques for a recipe, one file each; the file name is its name in params.yaml."""
