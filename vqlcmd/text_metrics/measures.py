"""Statistics of texts: distinct n-grams, known words, and the entropy of words or tokens."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence, Set


def words(text: str) -> list[str]:
    """The words of a block, separated by white space; words that its ends may have cut are left out."""
    found = text.split()
    if found and not text[0].isspace():
        found = found[1:]
    if found and not text[-1].isspace():
        found = found[:-1]
    return found


def distinct_ngrams(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """Fraction of distinct n-grams of words among all; None where no text has n words."""
    grams = [tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def known_share(texts: Iterable[Sequence[str]], vocabulary: Set[str]) -> float | None:
    """Fraction of words that are in `vocabulary`; None where there are no words."""
    found = [word in vocabulary for text in texts for word in text]
    return sum(found) / len(found) if found else None


def entropy(items: Iterable[object]) -> float:
    """Entropy of the distribution of items in bits, sum of p log2(1 / p); 0 without items."""
    counts = Counter(items)
    total = counts.total()
    return sum(count / total * math.log2(total / count) for count in counts.values())
