"""Text from elsewhere, such as the name of a file, made fit for a terminal."""

import re

# What a terminal obeys (C0, C1), what turns the direction of reading or ends a line, and bytes that are no UTF-8.
_OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def inert(text: str) -> str:
    r"""One line that a terminal shows and does not obey: control characters as Python writes them.

    >>> print(inert("red \x1b[31m, next\nline"))
    red \x1b[31m, next\nline
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
