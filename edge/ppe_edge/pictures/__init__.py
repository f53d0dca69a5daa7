"""Images that the box writes: alert snapshots, samples for training, annotated videos."""
