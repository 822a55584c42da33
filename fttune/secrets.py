"""What must not be shown: the name and password in an address."""

import re

# Paths of files may hold an @ too.
_CREDENTIALS = re.compile(r"(?<!sqlite)(?<!file)://\S*@|(?<=[?&]password=)[^&\s]+")


def masked(text: str) -> str:
    """Text without what stands in its URIs as name and password; equal to `text` where there is none."""
    return _CREDENTIALS.sub(lambda found: "://***@" if found[0].endswith("@") else "***", text)
