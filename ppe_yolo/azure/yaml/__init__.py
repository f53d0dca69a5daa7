"""Azure ML's YAML files: documents with line numbers, pipelines, components, bindings and assets."""
