"""Tables of experiments, run through DVC."""
