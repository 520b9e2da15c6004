"""From an image source to pixels."""
