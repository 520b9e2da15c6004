"""Copied runs: what the automaton finds is what a search over all runs finds."""

import random

import pytest

from vqlcmd.text_metrics.suffix_automaton import Run, SuffixAutomaton


def longest(row: list[int], text: list[int]) -> int:
    """By trying all of them."""
    windows = {tuple(text[i:j]) for i in range(len(text)) for j in range(i, min(i + len(row), len(text)) + 1)}
    return max(j - i for i in range(len(row) + 1) for j in range(i, len(row) + 1) if tuple(row[i:j]) in windows)


@pytest.mark.parametrize("seed", range(40))
def test_the_longest_run_is_that_of_a_search(seed: int) -> None:
    drawn = random.Random(seed)
    codes = drawn.choice([2, 3, 6])
    rows = [[drawn.randrange(codes) for _ in range(drawn.randint(0, 14))] for _ in range(drawn.randint(1, 6))]
    rows += rows[:1]
    text = [drawn.randrange(codes + 1) for _ in range(drawn.randint(0, 60))]
    automaton = SuffixAutomaton(rows)
    automaton.read(iter(text))
    for row, run in zip(rows, automaton.longest(), strict=True):
        assert run.length == longest(row, text)
        assert row[run.end - run.length : run.end] == text[run.place - run.length : run.place]


def test_a_row_that_is_the_text_is_copied_whole() -> None:
    text = [3, 1, 4, 1, 5, 9, 2, 6]
    automaton = SuffixAutomaton([text, [7, 1, 5, 9, 7], [8, 8]])
    automaton.read(text)
    assert automaton.longest() == [Run(8, 8, 8), Run(3, 4, 6), Run(0, 0, 0)]


def test_its_states_are_at_most_two_a_token() -> None:
    drawn = random.Random(0)
    rows = [[drawn.randrange(2) for _ in range(100)] for _ in range(20)]
    assert len(SuffixAutomaton(rows)._next) <= 2 * sum(map(len, rows))
