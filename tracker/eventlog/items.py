"""The items of a JSON list whose whole cannot be read: one that is odd must not take its neighbours with it."""

import re
from collections.abc import Iterator

#: A string, to its end or that of the text; or what lists are made of. Possessive, so that no text takes long.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|[\[\]{},]', re.DOTALL)


def split_list(text: str) -> Iterator[str]:
    """Yield the text of each item of what should be a JSON list, unread; also of one that was cut off.

    Nothing is left out: what follows the list is an item as well.
    """
    depth, start = 0, text.index("[") + 1
    for token in _TOKEN.finditer(text, start):
        sign = text[token.start()]
        if depth == 0 and sign in ",]}":
            yield text[start : token.start()]
            start = token.end()
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
    yield text[start:]
