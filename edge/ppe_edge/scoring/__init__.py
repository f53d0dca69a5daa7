"""Scores videos against event-level truth: which violations are reported, how soon, and how many alerts are false."""
