"""Metrics of text: word statistics, copied runs, and compressors to compare a likelihood with."""
