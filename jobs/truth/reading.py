"""Ground truth in any of the forms that are known, wherever it lies."""

from __future__ import annotations

from collections.abc import Sequence

from archives.errors import UsageError
from archives.stores.opening import open_root, split_uri
from archives.stores.store import Store
from jobs.truth import coco, voc, yolo
from jobs.truth.annotation_files import Place, first_files, shown
from jobs.truth.objects import Truth

VOC, COCO, YOLO = FORMS = (voc.VocTruth.form, coco.CocoTruth.form, yolo.YoloTruth.form)
AUTO = "auto"
LISTS = "annotations"  # where COCO's files lie
FEW = 20


def read_truth(
    place: str,
    form: str = AUTO,
    categories: Sequence[str] = (),
    pictures: Store | None = None,
    masks: bool = True,
    fallback: Sequence[str] = (),
) -> Truth:
    """The true objects of pictures; their annotations are read when a picture is asked for.

    place: a folder, a file or an s3:// URI. By form:
      voc: Annotations, or the folder that it lies in, or the pictures' folder beside it, or any
        folder of XML files. A picture's file is its key with .xml instead of its ending, or the
        end of that, the longest that is there: JPEGImages/a/x.xml, a/x.xml or x.xml.
      coco: a JSON file of instances, or the folder with one, or with annotations/instances*.json.
      yolo: labels, or the folder that it lies in, or any folder of text files; likewise.
      auto: whichever of these is there; folders of these names count before loose files.
    categories: the classes' names in the order of their numbers, for YOLO; else they are as the
        annotations have them.
    pictures: where pictures lie by their keys; YOLO's shares need their sizes.
    masks: whether masks are decoded, too.
    fallback: the classes' names for YOLO where the data set itself gives none.
    Raises UsageError where nothing of the form is there, or with auto several are.
    """
    root, path = split_uri(place)
    here = Place(open_root(root), path.rstrip("/"))  # once: to connect takes a while
    if form not in (AUTO, *FORMS):
        raise UsageError(f"got the form {shown(form)!r}; expected {AUTO}, {', '.join(FORMS)}")
    if here.path and here.root.find(here.path) is not None:
        if form not in (AUTO, COCO) or not here.path.lower().endswith(".json"):
            raise UsageError(
                f"{shown(place)} is a file; expected COCO's instances (.json), or the folder of"
                f" {voc.ANNOTATIONS} or {yolo.LABELS}"
            )
        return coco.CocoTruth(here, masks)
    wanted = FORMS if form == AUTO else (form,)
    # Folders of the usual names count before files that lie about.
    found = _usual(here, place, wanted) or _loose(here, place, wanted)
    if not found:
        raise UsageError(_nothing(place, form))
    if len(found) > 1:
        raise UsageError(
            f"{shown(place)} holds ground truth in the forms {' and '.join(found)}; say which with"
            " --truth-format"
        )
    if VOC in found:
        return voc.VocTruth(found[VOC], categories, masks)
    if YOLO in found:
        return yolo.YoloTruth(found[YOLO], categories, pictures, masks, fallback)
    return coco.CocoTruth(found[COCO], masks)


def _usual(here: Place, place: str, forms: Sequence[str]) -> dict[str, Place]:
    """What lies in folders of the usual names, by form: the folder, or COCO's file."""
    found: dict[str, Place] = {}
    if VOC in forms:
        for folder in filter(None, (here, here.parent())):
            if VOC not in found and _holds(folder.below(voc.ANNOTATIONS), ".xml"):
                found[VOC] = folder.below(voc.ANNOTATIONS)
    if YOLO in forms and _holds(here.below(yolo.LABELS), ".txt"):
        found[YOLO] = here.below(yolo.LABELS)
    if COCO in forms and (file := _one_file(here.below(LISTS), place)):
        found[COCO] = file
    return found


def _loose(here: Place, place: str, forms: Sequence[str]) -> dict[str, Place]:
    """What lies in the folder itself, by form."""
    found: dict[str, Place] = {}
    if VOC in forms and _holds(here, ".xml"):
        found[VOC] = here
    if YOLO in forms and _holds(here, ".txt"):
        found[YOLO] = here
    if COCO in forms and (file := _one_file(here, place)):
        found[COCO] = file
    return found


def _holds(folder: Place, suffix: str) -> bool:
    return first_files(folder.store(), (suffix,), 1, yolo.NO_LABELS) != []


def _one_file(folder: Place, place: str) -> Place | None:
    """The one JSON file of instances right in a folder."""
    own = [key for key in first_files(folder.store(), (".json",), FEW) if "/" not in key]
    found = [key for key in own if key.startswith("instances")] or own
    if len(found) > 1:
        raise UsageError(
            f"{shown(place)} holds {', '.join(map(shown, found[:3]))}"
            f"{', ...' * (len(found) > 3)}; say which one is meant"
        )
    return folder.below(found[0]) if found else None


def _nothing(place: str, form: str) -> str:
    looked = {
        VOC: f"{voc.ANNOTATIONS}/*.xml there or beside it, *.xml",
        COCO: f"{LISTS}/instances*.json, *.json",
        YOLO: f"{yolo.LABELS}/*.txt, *.txt",
    }
    what = [looked[each] for each in FORMS if form in (AUTO, each)]
    return f"there is no ground truth at {shown(place)}: looked for {'; '.join(what)}"
