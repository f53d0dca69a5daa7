"""Images that the box writes: snapshots and clips, which go to the outbox with their alerts, samples, annotated videos."""
