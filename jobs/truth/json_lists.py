"""A large JSON object whose values are long lists, read an element at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class JsonLists:
    """Walks one JSON object of lists; no more of it is held than its text and one element.

    text: the whole. Raises ValueError, which says at what character, for what is no such object.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def elements(self) -> Iterator[tuple[str, Any, int]]:
        """(the list's name, an element, the character where it begins), in the file's order; a
        value that is no list comes as one."""
        place = self._expect("{", 0)
        if self._next(place) == "}":
            return
        while True:
            if self._next(place) != '"':
                raise self._error("a name in quotes", place)
            name, place = self.value(self._skip(place))
            place = self._expect(":", place)
            if self._next(place) == "[":
                place = self._expect("[", place)
                more = self._next(place) != "]"
                while more:
                    start = self._skip(place)
                    value, place = self.value(start)
                    yield name, value, start
                    more = self._next(place) == ","
                    if more:
                        place = self._expect(",", place)
                place = self._expect("]", place)
            else:
                start = self._skip(place)
                value, place = self.value(start)
                yield name, value, start
            if self._next(place) != ",":
                break
            place = self._expect(",", place)
        place = self._expect("}", place)
        if self._skip(place) != len(self.text):
            raise self._error("the end", place)

    def value(self, place: int) -> tuple[Any, int]:
        """The value that begins at a character, and where it ends."""
        try:
            return _DECODER.raw_decode(self.text, place)
        except RecursionError as error:
            raise self._error("a value that is not nested so deep", place) from error

    def _skip(self, place: int) -> int:
        found = _SPACE.match(self.text, place)
        assert found is not None  # it matches nothing, too
        return found.end()

    def _next(self, place: int) -> str:
        place = self._skip(place)
        return self.text[place : place + 1]

    def _expect(self, character: str, place: int) -> int:
        if self._next(place) != character:
            raise self._error(character, place)
        return self._skip(place) + 1

    def _error(self, expected: str, place: int) -> ValueError:
        place = self._skip(place)
        got = self.text[place : place + 10] or "the end"
        return ValueError(f"character {place:,}: expected {expected}, got {got!r}")
