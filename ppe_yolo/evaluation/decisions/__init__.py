"""Decisions: the alarm thresholds, and whether a model replaces the current one."""
