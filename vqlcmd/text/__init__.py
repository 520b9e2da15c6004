"""Text as tokens: files, vocabularies, blocks, and what is measured of samples that are text."""
