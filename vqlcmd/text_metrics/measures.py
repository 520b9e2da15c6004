"""Numbers of texts: how many n-grams are distinct, which words are known, how even the words are spread."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence, Set


def words(text: str) -> list[str]:
    """The whole words of a block, between white space; what its ends may have cut is left out."""
    found = text.split()
    if found and not text[0].isspace():
        found = found[1:]
    if found and not text[-1].isspace():
        found = found[:-1]
    return found


def distinct_ngrams(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """Share of different ones among all runs of n words; None where no text has so many."""
    grams = [tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def known_share(texts: Iterable[Sequence[str]], vocabulary: Set[str]) -> float | None:
    """Share of words that are in `vocabulary`; None where there is no word."""
    found = [word in vocabulary for text in texts for word in text]
    return sum(found) / len(found) if found else None


def entropy(items: Iterable[object]) -> float:
    """Of the distribution of items, in bits: sum of p log2 1/p; 0 for none."""
    counts = Counter(items)
    total = counts.total()
    return sum(count / total * math.log2(total / count) for count in counts.values())
