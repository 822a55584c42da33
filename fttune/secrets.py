"""What must not be shown: the name and password in an address."""

import re

# Paths of files may hold an @ too, and a password a space: rather too much of a line is hidden than too little.
_CREDENTIALS = re.compile(
    r"(?<!sqlite)(?<!file)(://).*@|([?&;]\w*(?:pass|pwd|token|secret|api_?key)\w*=)[^&;\s]+", re.IGNORECASE
)


def masked(text: str) -> str:
    """Text without what stands in its URIs as name and password; equal to `text` where there is none."""
    return _CREDENTIALS.sub(lambda found: "://***@" if found[1] else f"{found[2]}***", text)
