"""XML of annotations: elements with their lines, and nothing that XML could do besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

DEEPEST = 20
MOST_ELEMENTS = 100_000  # each takes some hundred bytes


class XmlError(ValueError):
    """No XML, or XML that is more than elements and text; the message says where and why."""


@dataclass
class Element:
    """An element. line: where it begins, from 1. text: all of its own, but not its children's."""

    tag: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """Its own children of one tag."""
        return (each for each in self.children if each.tag == tag)

    def first(self, tag: str) -> Element | None:
        """The first of its own children of one tag."""
        return next(self.all(tag), None)


def parse_xml(data: bytes) -> Element:
    """The root. Raises XmlError, also for a document type declaration (which is where entities are
    declared, that expand without end or name other files), for more than DEEPEST levels, and for
    more than MOST_ELEMENTS."""
    parser = expat.ParserCreate()
    root: list[Element] = []
    opened: list[Element] = []
    number = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal number
        number += 1
        if number > MOST_ELEMENTS:
            raise XmlError(f"line {parser.CurrentLineNumber}: more than {MOST_ELEMENTS:,} elements")
        if len(opened) == DEEPEST:
            raise XmlError(f"line {parser.CurrentLineNumber}: more than {DEEPEST} levels")
        element = Element(tag, parser.CurrentLineNumber)
        (opened[-1].children if opened else root).append(element)
        opened.append(element)

    def end(tag: str) -> None:
        closed = opened.pop()
        closed.text = "".join(texts.pop(id(closed), ())).strip()

    def text(data: str) -> None:
        if opened:
            texts.setdefault(id(opened[-1]), []).append(data)

    def doctype(*_: object) -> None:
        raise XmlError(
            f"line {parser.CurrentLineNumber}: a document type declaration (<!DOCTYPE>), which"
            " annotations need not have: it could bring in other files; remove it"
        )

    texts: dict[int, list[str]] = {}
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise XmlError(f"line {error.lineno}: no XML ({expat.ErrorString(error.code)})") from error
    except (LookupError, UnicodeError) as error:
        raise XmlError(f"an encoding that is not known ({error})") from error
    return root[0]
