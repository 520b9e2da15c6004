"""What is measured of text: statistics of words, copied runs, and compressors to put a likelihood beside."""
