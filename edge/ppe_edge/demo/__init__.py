"""`ppe-edge demo`: the box on a drawn building site, without a camera and without a configuration."""
