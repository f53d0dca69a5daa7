"""What a training reads: samples, their augmentation, the order of the batches, and the data module that puts them together."""
