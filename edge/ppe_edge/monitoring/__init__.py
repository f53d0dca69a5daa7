"""What the box reports about itself: metrics, the state of its cameras, its memory, the check of its health."""
