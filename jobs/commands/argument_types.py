"""Numbers on a command line: each function raises argparse.ArgumentTypeError, "expected ..., got
TEXT", for text that is no number, or out of its range."""

from __future__ import annotations

import argparse
import math
import re


def number(text: str, least: float, most: float) -> float:
    """From `least` to `most`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(
            f"expected a number from {least:g} to {most:g}, got {text}"
        )
    return value


def whole(text: str, least: int, most: int | None = None) -> int:
    """At least `least`, and at most `most` if there is one."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"expected a whole number {allowed}, got {text}")
    return value


def count(text: str) -> int:
    """At least 1."""
    return whole(text, 1)


def share(text: str) -> float:
    """From 0 to 1."""
    return number(text, 0, 1)


def part(text: str) -> float:
    """Above 0, at most 1."""
    value = share(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 1, got {text}")
    return value


def seed(text: str) -> int:
    """What random generators take."""
    return whole(text, 0, 2**63 - 1)


def part_of(text: str) -> tuple[int | None, int]:
    """INDEX/COUNT, one of COUNT parts from 0 on; of /COUNT the index is None."""
    found = re.fullmatch(r"([0-9]{1,9})?/([0-9]{1,9})", text.strip())
    index, several = found.groups() if found else (None, "0")
    if int(several) <= int(index or 0):
        raise argparse.ArgumentTypeError(
            "expected INDEX/COUNT with an INDEX of 0 to COUNT - 1, such as 3/8, or /8 where the"
            f" environment has the index, got {text}"
        )
    return int(index) if index else None, int(several)


def threshold(text: str) -> str:
    """The text, if `split_threshold` takes it."""
    try:
        split_threshold(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected FIGURE>=NUMBER or FIGURE<=NUMBER, as 'default energy>=0.3', got {text!r}"
        ) from error
    return text


def split_threshold(text: str) -> tuple[str, str, float]:
    """("default energy", ">=", 0.3) of "default energy>=0.3"; raises ValueError for what is not of
    this form."""
    match = re.fullmatch(r"\s*(\S.*?)\s*(>=|<=)\s*(\S+)\s*", text)
    if match is None or not math.isfinite(number := float(match[3])):
        raise ValueError(text)
    return " ".join(match[1].split()), match[2], number
