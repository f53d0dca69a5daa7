"""Promotion of models: the decision, and the model registry."""
