"""What a command tells whoever runs it, beside its results."""

from __future__ import annotations

import sys

from archives.errors import printable


def say(text: str) -> None:
    """A line on standard error; what could steer a terminal is spelled out."""
    print(f"jobs: {printable(text)}", file=sys.stderr, flush=True)
