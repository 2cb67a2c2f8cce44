"""Which classes stand for which category."""

from __future__ import annotations

from pathlib import Path

import pytest

from archives.errors import UsageError
from jobs.boxes.categories import category_of, read_map, same_names

CLASSES = ("tabby", "Chihuahua", "crane", "pug", "crane", "beagle")
TRUTH = ("cat", "dog", "bird")


def test_same_names() -> None:
    names = ("dog", "dog", "cat", "crane")
    assert same_names(names, TRUTH, ()) == {"cat": (2,), "dog": (0, 1)}
    assert same_names(names, TRUTH, (), first_label=1) == {"cat": (2,), "dog": (1,)}
    assert same_names(names, TRUTH, ("cat",)) == {"cat": (2,)}
    # VOC has no list of its categories.
    assert same_names(names, (), (), 1) == {"dog": (1,), "cat": (2,), "crane": (3,)}


@pytest.mark.parametrize(
    ("classes", "wanted", "message"),
    [
        (
            ("a", "b"),
            (),
            "cat, dog, bird: expected categories that .* network .a, b. have",
        ),
        (("cat", "crane"), ("crane",), "crane: expected categories that both"),
        (("cat", "b"), ("cat", "dog"), "dog: expected categories that both"),
    ],
)
def test_names_on_one_side_alone(
    classes: tuple[str, ...], wanted: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        same_names(classes, TRUTH, wanted)


def test_a_map_of_names_labels_and_ranges(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("dog: [Chihuahua, 3, 5-5]\nbird: crane\ncat: [0-0]\n")
    found = read_map(str(path), CLASSES, TRUTH, ())
    assert found == {"dog": (1, 3, 5), "bird": (2, 4), "cat": (0,)}
    assert read_map(str(path), CLASSES, (), ("dog",)) == {"dog": (1, 3, 5)}
    assert category_of(found) == {0: "cat", 1: "dog", 2: "bird", 3: "dog", 4: "bird", 5: "dog"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog: [1-9]", "got '1-9'; expected a class's name, a label from 0 to 5"),
        ("dog: [3-1]", "got '3-1'"),
        ("dog: [true]", "got 'True'"),
        ("dog: [poodle]", "got 'poodle'"),
        ("cow: [1]", "the truth has no 'cow'; it has cat, dog, bird"),
        ("dog: [pug]\ncat: [0-3]", "'pug' stands for dog and for cat"),
        ("cat: [0]", "does not say which classes are dog"),
        ("- dog", "expected categories of the truth, each with a list of classes"),
        ("dog: [", "is no YAML: while parsing"),
        ("!!python/object/apply:os.getcwd []", "is no YAML: could not determine"),
    ],
)
def test_what_is_no_map(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_map(str(path), CLASSES, TRUTH, ("dog",))
    with pytest.raises(UsageError, match="there is no categories map"):
        read_map(str(tmp_path / "none.yaml"), CLASSES, TRUTH, ())
