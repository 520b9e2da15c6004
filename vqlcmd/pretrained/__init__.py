"""Published tokenizers, read as data and never executed."""
