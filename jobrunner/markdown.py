"""Pieces of Markdown that the generated pages of `docs` share."""

from collections.abc import Iterable, Sequence

_NONE = "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, one line per row."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def code(word: str) -> str:
    """Return a word as code."""
    return f"`{word}`"


def codes(words: Iterable[str]) -> str:
    """Return words as code, or a dash if there are none."""
    return ", ".join(code(word) for word in words) or _NONE
