"""Annotated images: sources, class maps, audit, splits, augmentation and loaders."""
