"""Runs Azure ML pipelines on this machine, without Azure or docker."""
