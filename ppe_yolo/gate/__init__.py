"""Which model ships: the promotion gate and the model registry."""
