"""Images that the box writes: snapshots, samples for training, annotated videos."""
