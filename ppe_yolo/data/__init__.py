"""Annotated photos: reading, checking, splitting, augmenting and batching them."""
