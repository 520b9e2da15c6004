"""How much of each row was copied from a long text: its longest run of tokens that stands there too.

A suffix automaton (Blumer et al. 1985) of the rows, which may be few, reads the text once, which may be long. Memory
grows with the rows alone: at most two states a token, some 500 bytes each. Time: one dictionary look-up a token of the
text, and less than another one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """`length` tokens up to `end` (exclusive) of a row, which end at `place` (exclusive) of the text."""

    length: int
    end: int
    place: int


class SuffixAutomaton:
    """Of several rows of tokens. A state stands for the runs that end at the same places; `read` may be called once."""

    def __init__(self, rows: Sequence[Sequence[int]]):
        self._next: list[dict[int, int]] = [{}]
        self._link, self._length = [-1], [0]
        self._rows = rows
        for row in rows:
            last = 0
            for token in row:
                last = self._extend(last, token)
        self._best, self._place = [0] * len(self._next), [0] * len(self._next)

    def _state(self, following: dict[int, int], link: int, length: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        return len(self._next) - 1

    def _extend(self, last: int, token: int) -> int:
        """The state of the run that ends in `token`, behind that of the row so far."""
        known = self._next[last].get(token)
        if known is not None:
            # An earlier row begins alike.
            return known if self._length[known] == self._length[last] + 1 else self._split(last, token, known)
        made = self._state({}, 0, self._length[last] + 1)
        here = last
        while here >= 0 and token not in self._next[here]:
            self._next[here][token] = made
            here = self._link[here]
        if here >= 0:
            known = self._next[here][token]
            exact = self._length[known] == self._length[here] + 1
            self._link[made] = known if exact else self._split(here, token, known)
        return made

    def _split(self, here: int, token: int, known: int) -> int:
        """A state for the shorter runs of `known`, which end in more places than the longer ones."""
        clone = self._state(dict(self._next[known]), self._link[known], self._length[here] + 1)
        self._link[known] = clone
        while here >= 0 and self._next[here].get(token) == known:
            self._next[here][token] = clone
            here = self._link[here]
        return clone

    def read(self, text: Iterable[int]) -> None:
        """Follow a text, and note at each state the longest run of it that was met."""
        following, link, lengths, best, place = self._next, self._link, self._length, self._best, self._place
        state, length = 0, 0
        for position, token in enumerate(text, 1):
            further = following[state].get(token)
            while further is None and state:
                state = link[state]
                length = lengths[state]
                further = following[state].get(token)
            if further is None:
                continue
            state = further
            length += 1
            if length > best[state]:
                best[state], place[state] = length, position
        # The runs of a state end with those of its link: whoever met the one has met the other.
        for state in sorted(range(1, len(best)), key=lengths.__getitem__, reverse=True):
            parent = link[state]
            if best[state] and best[parent] < lengths[parent]:
                best[parent], place[parent] = lengths[parent], place[state]

    def longest(self) -> list[Run]:
        """The longest run of each row that the text has; of length 0 where it has no token of it."""
        return [self._longest(row) for row in self._rows]

    def _longest(self, row: Sequence[int]) -> Run:
        found, state = Run(0, 0, 0), 0
        for end, token in enumerate(row, 1):
            state = self._next[state][token]
            here = state
            while here > 0 and not self._best[here]:
                here = self._link[here]
            if here > 0 and self._best[here] > found.length:
                found = Run(self._best[here], end, self._place[here])
        return found
