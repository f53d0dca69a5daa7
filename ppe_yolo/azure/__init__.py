"""Reads, checks, runs and submits Azure ML pipelines. Only `submit` and `lint.official` import Azure's libraries."""
