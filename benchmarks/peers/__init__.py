"""What a user would pick instead, beside ours, in one process and on the same threads: `python -m benchmarks.peers`.

Needs the optional group `peers`; a peer that is not installed is named and left out. Times are medians of rounds taken
in turn (benchmarks/measure.py), and a ratio is the peer's time over ours: above 1 we are ahead.
"""
