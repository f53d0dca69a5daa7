"""Training samples: augmentation, datasets and samplers."""
