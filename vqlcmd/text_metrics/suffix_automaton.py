"""How much of each row was copied from a long text: its longest run of tokens that also occurs there.

A suffix automaton (Blumer et al. 1985) is built of the rows and reads the text once. Its memory depends only on the
rows: at most two states per token, about 500 bytes each. Reading takes one dictionary look-up per token of the text
and, on average, less than one more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """`length` tokens that end at `end` (exclusive) in a row and at `place` (exclusive) in the text."""

    length: int
    end: int
    place: int


class SuffixAutomaton:
    """The suffix automaton of several rows of tokens; `read` may be called once.

    A state stands for the runs that end at the same positions of the rows.
    """

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
        """Append `token` to the row so far, whose state is `last`; returns the new state."""
        known = self._next[last].get(token)
        if known is not None:
            # An earlier row contains this run already.
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
        """Add a state for the shorter runs of `known`, which end at more positions than the longer ones."""
        clone = self._state(dict(self._next[known]), self._link[known], self._length[here] + 1)
        self._link[known] = clone
        while here >= 0 and self._next[here].get(token) == known:
            self._next[here][token] = clone
            here = self._link[here]
        return clone

    def read(self, text: Iterable[int]) -> None:
        """Read a text, and record for each state the longest of its runs that occurs in the text."""
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
        # The runs of a state end with those of its link, so a text that contains the former contains the latter.
        for state in sorted(range(1, len(best)), key=lengths.__getitem__, reverse=True):
            parent = link[state]
            if best[state] and best[parent] < lengths[parent]:
                best[parent], place[parent] = lengths[parent], place[state]

    def longest(self) -> list[Run]:
        """The longest run of each row that occurs in the text; of length 0 where no token of the row does."""
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
