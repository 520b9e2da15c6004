"""The pipeline: one module per stage, and the command line that mounts them."""
