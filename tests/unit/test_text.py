"""Foreign text is clean and no longer than stated."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.text import NAME, SENTENCE, TRACEBACK, bounded


@pytest.mark.parametrize("text", ["", "a", "Größe, 測試 🎉", "two\nlines\ttabbed", "x" * 10])
def test_text_that_fits_stays_as_it_is(text: str) -> None:
    assert bounded(text, 20) == text


def test_text_of_just_the_length_is_not_cut() -> None:
    assert bounded("abcde", 5) == "abcde"


def test_longer_text_is_cut_to_the_length_and_says_so() -> None:
    assert bounded("abcdef", 5) == "abcd…"


def test_a_nul_is_replaced() -> None:
    assert bounded("a\x00b", 10) == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("surrogate", [0xD800, 0xDBFF, 0xDC00, 0xDFFF])
def test_a_lone_surrogate_is_replaced(surrogate: int) -> None:
    assert bounded(f"a{chr(surrogate)}b", 10) == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("neighbor", ["\x01", "\ud7ff", "\ue000"])
def test_characters_next_to_the_unfit_ones_are_kept(neighbor: str) -> None:
    assert bounded(neighbor, 10) == neighbor


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (None, "None"), (ValueError("x"), "x"), ([1], "[1]")])
def test_what_is_no_text_becomes_text(value: object, text: str) -> None:
    assert bounded(value, 10) == text


def test_lengths_grow_from_names_to_tracebacks() -> None:
    assert (NAME, SENTENCE, TRACEBACK) == (255, 1_000, 20_000)


@settings(deadline=None)
@given(st.text(st.characters(codec=None, exclude_categories=())), st.integers(1, 20))
def test_any_text_comes_out_fit_for_a_database(text: str, limit: int) -> None:
    cut = bounded(text, limit)
    assert len(cut) == min(len(text), limit)
    assert "\x00" not in cut
    cut.encode()  # a lone surrogate would raise
    assert bounded(cut, limit) == cut
