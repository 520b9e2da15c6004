"""Statistics of words, where they can be told by hand."""

import math

import pytest

from vqlcmd.text_metrics import compressors, measures


def test_words_that_a_block_may_have_cut_do_not_count() -> None:
    assert measures.words("ut the cat sa") == ["the", "cat"]
    assert measures.words(" the cat ") == ["the", "cat"]
    assert measures.words("one") == []
    assert measures.words("") == []


def test_distinct_ngrams_are_a_share_of_all_of_them_and_cross_no_block() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b"], ["c"]]
    assert measures.distinct_ngrams(texts, 1) == 3 / 7
    assert measures.distinct_ngrams(texts, 2) == 2 / 4
    assert measures.distinct_ngrams(texts, 4) == 1
    assert measures.distinct_ngrams(texts, 5) is None


def test_known_words_are_a_share_of_all_words() -> None:
    assert measures.known_share([["a", "x"], ["a", "b"]], {"a", "b"}) == 3 / 4
    assert measures.known_share([[]], {"a"}) is None


def test_entropy_is_that_of_even_and_of_single_items() -> None:
    assert measures.entropy("abcd" * 5) == pytest.approx(2)
    assert measures.entropy("aaaa") == 0
    assert measures.entropy("") == 0
    assert measures.entropy("aab") == pytest.approx(math.log2(3) - 2 / 3)


NOISE = "".join(chr(97 + (7 * number**3 + number // 11) % 23) for number in range(5000))


@pytest.mark.parametrize("name", compressors.COMPRESSORS)
def test_a_text_that_follows_itself_costs_nearly_nothing_where_it_is_remembered(name: str) -> None:
    if name == "ppmd":
        pytest.importorskip("pyppmd")
    alone = compressors.bits(name, NOISE)
    assert 0 < alone < 8 * len(NOISE)
    if compressors.COMPRESSORS[name].remembers:
        assert compressors.bits(name, NOISE, NOISE) < alone / 10
