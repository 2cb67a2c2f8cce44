"""XML that holds elements alone."""

from __future__ import annotations

import pytest

from jobs.truth.plain_xml import DEEPEST, MOST_ELEMENTS, XmlError, parse_xml

LAUGHS = b"""<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]>
<a>&y;</a>"""


def test_elements_with_their_lines_and_text() -> None:
    root = parse_xml(b"<a>\n <b>one<!-- not this --> two</b>\n <c/>\n<b>3</b></a>")
    assert (root.tag, root.line, root.text) == ("a", 1, "")
    assert [(each.line, each.text) for each in root.all("b")] == [(2, "one two"), (4, "3")]
    first = root.first("c")
    assert first is not None
    assert first.line == 3
    assert root.first("d") is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_encodings(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><a>é &amp; &lt;</a>'
    assert parse_xml(text.encode(encoding)).text == "é & <"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (LAUGHS, "line 2: a document type declaration"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "line 1: a document type"),
        (b"<a>\n&x;</a>", "line 2: no XML .undefined entity"),
        (b"", "no element found"),
        (b"<a>\n<b></a>", "line 2: no XML .mismatched tag"),
        (b'<?xml version="1.0" encoding="base64"?><a/>', "an encoding that is not known"),
        (b"<a>" * (DEEPEST + 1), "more than 20 levels"),
        (b"<a>\n" + b"<b/>" * MOST_ELEMENTS + b"</a>", "line 2: more than 100,000 elements"),
        (b"<a>&#xD800;</a>", "line 1: no XML"),
    ],
)
def test_what_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(XmlError, match=said):
        parse_xml(data)
