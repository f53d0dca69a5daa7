"""What people decide about alerts, and the training data that comes of it."""
