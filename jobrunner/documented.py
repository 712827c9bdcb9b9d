"""Words that carry their meaning: help texts and pages are made of it."""

from enum import StrEnum
from typing import Self


class Documented(StrEnum):
    """A word together with its meaning, which is the member's docstring."""

    def __new__(cls, value: str, *sentences: str) -> Self:
        """Make a member of a word and the sentences about it."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.__doc__ = " ".join(sentences)
        return member
