"""Reading Azure ML's YAML files."""
