"""Text as tokens: files, vocabularies, blocks."""
