"""From raw maps to detections, and from a model file to a detector: `loading.load_detector` is the entry point."""
