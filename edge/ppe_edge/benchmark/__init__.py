"""How fast this machine is: `python -m ppe_edge.benchmark`, and the estimate of the dry run."""
