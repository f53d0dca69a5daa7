"""From nothing, or from a folder of annotated images, to an evaluated detector."""
