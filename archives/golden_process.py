"""The process that runs an archive's own code on its golden sample: `python -P FILE ORDER`.

ORDER is a JSON file: `folder` (the unpacked archive, which alone is on PYTHONPATH), `device`,
`picture` (a file, "" to only load the archive), `request` (fields of ExplainRequest; null to choose
them, on top of the archive's defaults), `answer` (the folder to write into). It writes
answer/outcome.json: `error`, and where that is null `request` and `explanations`, beside
answer/NUMBER.npy, the heatmaps.

Of the archive's code it uses only what any version has, but for choosing a request, which is done
when it is built.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

# A golden sample explains so many of the strongest candidates, whatever they score: so that weights
# that detect nothing in the picture give something, too.
CANDIDATES = 3
# Between the scores of the last of them and of the next: another machine's arithmetic must not swap
# these two. Ten times the tolerance.
GAP = 1e-3
# Masks are drawn by number, and these are enough to tell that they agree.
MASKS = 16


def main(order_file: str) -> int:
    """Does what the order says; 0 also where the archive fails, which outcome.json tells."""
    order = json.loads(Path(order_file).read_text())
    folder, answer = Path(order["folder"]), Path(order["answer"])
    _pin_arithmetic()
    outcome: dict[str, Any] = {"error": None}
    try:
        outcome |= _run(folder, answer, order)
    except Exception as error:  # any code, so any error
        text = f"{type(error).__name__}: {error}"
        outcome["error"] = " ".join(text.split())[:1000]
    (answer / "outcome.json").write_text(json.dumps(outcome))
    return 0


def _pin_arithmetic() -> None:
    """The same sums in the same order on every processor of a family, whatever its cores and
    vector units; the environment of this process pins what is chosen before torch is loaded."""
    import torch

    backends: Any = torch.backends
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    backends.mkldnn.set_flags(False)
    backends.nnpack.set_flags(False)
    backends.cudnn.benchmark = False
    # Some layers have no deterministic form on a GPU: there the tolerances have to do.
    torch.use_deterministic_algorithms(True, warn_only=True)


def _run(folder: Path, answer: Path, order: Mapping[str, Any]) -> dict[str, Any]:
    import handlers

    origin = str(handlers.__file__)
    if not Path(origin).resolve().is_relative_to(folder.resolve()):
        raise ImportError(f"handlers was imported from {origin} and not from the archive")
    from handlers.explainer import Explainer, ExplainRequest
    from handlers.images import decode_picture

    warnings.simplefilter("ignore")
    explainer = Explainer.from_archive(folder, device=order["device"], run_code=True)
    if not order["picture"]:
        return {}
    picture = decode_picture(Path(order["picture"]).read_bytes())
    if order["request"] is None:
        request, explained = _choose(explainer, picture)
    else:
        request = ExplainRequest.from_fields(order["request"], explainer.defaults)
        explained = explainer.explain([picture], request)[0]
    for place, each in enumerate(explained):
        np.save(answer / f"{place}.npy", each.heatmap.numpy())
    names = ("box", "label", "category", "score")
    return {
        "request": _fields(request),
        "explanations": [{name: getattr(each, name) for name in names} for each in explained],
    }


def _choose(explainer: Any, picture: Any) -> tuple[Any, list[Any]]:
    """The golden sample's request, and what it explains: the strongest candidates, as many as stand
    apart from the next; where none does, as with random weights, the place of the strongest.

    The detector, which costs most, runs once.
    """
    from handlers.tap import undisturbed

    defaults = explainer.defaults
    masks = min(defaults.masks or MASKS, MASKS)
    request = replace(defaults, box=None, save_raw=False, masks=masks, candidates=CANDIDATES)
    apart = replace(request, candidates=CANDIDATES + 1, sum_boxes=False, shared=False)
    explainer.check(request)
    with undisturbed(explainer.detector.model):
        ((_, found),) = explainer.found([explainer.prepare(picture)])
        several = {each.index: each for each in explainer.explain_found(found, apart)}
        scores = [several[index].score for index in sorted(several)]
        steady = [
            number
            for number in range(1, CANDIDATES + 1)
            if number >= len(scores) or scores[number - 1] - scores[number] > GAP
        ]
        request = replace(request, candidates=steady[-1]) if steady else _at(request, several[0])
        return request, explainer.explain_found(found, request)


def _at(request: Any, strongest: Any) -> Any:
    """The request for the candidate at a box; one without an area cannot be asked for."""
    x1, y1, x2, y2 = strongest.box
    if min(x2 - x1, y2 - y1) < 1:
        return replace(request, candidates=1)
    return replace(request, candidates=0, box=strongest.box, category=strongest.category)


def _fields(request: Any) -> dict[str, Any]:
    """What can be asked over HTTP: JSON values, which are taken as text, too."""
    values = {name: each for name, each in asdict(request).items() if name != "save_raw"}
    if request.box is not None:
        values["box"] = ",".join(map(repr, request.box))
    return values


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
