"""The code that runs: the commit it is of, and a digest that tells it from any other."""

import hashlib
import os
import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).parent


def commit() -> str:
    """Of the checkout that it runs from, `+` where that was changed since; without one what FTTUNE_COMMIT says."""
    checkout, told = _PACKAGE.parent, os.environ.get("FTTUNE_COMMIT", "")
    if not (checkout / ".git").exists():
        return told

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "HEAD")
        return head + "+" if head and git("status", "--porcelain", "--untracked-files=no") else head or told
    except FileNotFoundError:
        return told


def digest() -> str:
    """SHA-256 of the package's modules, names and contents."""
    told = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        content = file.read_bytes()
        told.update(f"{file.relative_to(_PACKAGE)} {len(content)}\n".encode() + content)
    return told.hexdigest()
