"""Decisions: the alarm thresholds, and which of two models ships."""
