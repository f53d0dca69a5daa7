"""The alert rule: from detections to tracks, and from tracks to violations."""
