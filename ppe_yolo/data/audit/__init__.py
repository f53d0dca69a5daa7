"""Checks of a data set: each image, the splits, and statistics."""
