"""Images to discrete tokens and back."""
