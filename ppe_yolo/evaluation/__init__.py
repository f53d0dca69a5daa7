"""How good a detector is: metrics, and the files that record them."""
