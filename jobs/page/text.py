"""Numbers and names as the report shows them; a browser's page is no terminal, but a name may still
be made to deceive."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from jobs.audit.findings import Cell

NOTHING = "–"
MINUS = "−"
# Control characters, and those of format, which turn the direction of text or are not seen at all;
# lone halves of a pair, which no file can hold.
HIDDEN = ("Cc", "Cf", "Cs")


def visible(text: str) -> str:
    r"""The text with what cannot be seen, or turns the text around it, written as \u202e."""
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each) in HIDDEN else each for each in text
    )


def shown(value: Cell) -> str:
    """A table's cell: three digits of a number that is not whole; of a pair two digits of the
    error, and as many places of the mean."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, (tuple, list)):
        return _with_error(*value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    if not math.isfinite(value):
        return NOTHING
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 0.001:
        text = f"{value:#.3g}".removesuffix(".")
    else:
        text = f"{value:.2g}"
    return text.replace("-", MINUS)


def _with_error(mean: float | None, error: float | None) -> str:
    if mean is None or not error or not math.isfinite(error) or not math.isfinite(mean):
        return shown(mean)
    places = min(6, max(0, 1 - math.floor(math.log10(abs(error)))))
    return f"{mean:,.{places}f} ± {error:,.{places}f}".replace("-", MINUS)


def counted(number: int, one: str, several: str = "") -> str:
    """ "1 box", "2,000 boxes"; `several` is `one` with an s unless it is given."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def date(text: str) -> str:
    """ "2026-03-02 04:00 UTC", of ISO 8601 in UTC as run.json has it."""
    return visible(text).replace("+00:00", "").replace("T", " ")[:16] + " UTC"


def setting(row: Mapping[str, Any]) -> str:
    """How a row was explained: method, target, layer."""
    return " · ".join(visible(str(row[name])) for name in ("method", "target", "layer"))
