"""What is measured once and not by `make bench`: each says how in its first lines."""
