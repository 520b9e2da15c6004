"""The learning-rate schedule of all training here: a linear warm-up times half a cosine."""

import math


def warmup_cosine(rise: float, angle: float, final: float = 0.0) -> float:
    """min(1, rise) (f + (1 - f) (1 + cos(angle)) / 2): factor on the learning rate, from 0 to 1, ends at f = `final`.

    `rise` is the fraction of the warm-up that is done, above 1 after it; `angle` runs from 0 to pi, and is clamped.
    """
    turn = min(max(angle, 0.0), math.pi)
    return min(1.0, rise) * (final + (1 - final) * 0.5 * (1 + math.cos(turn)))
