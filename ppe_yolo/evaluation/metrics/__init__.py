"""Metrics: matching detections to objects, average precision, intervals."""
