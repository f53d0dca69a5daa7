"""Running Azure ML pipelines on this machine."""
