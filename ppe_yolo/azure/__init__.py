"""Azure ML's YAML read, checked and run without Azure; Azure's own libraries are imported only to submit and to validate."""
