"""The dock's state, pins and sweep to a file and back; and the report's words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from .. import __version__
from ..difference import saved
from ..errors import InputError
from .layers import KEY
from .looks import COLORMAPS, instance_colours
from .pins import pins
from .references import DENSE, NOTHING, SHOWN

if TYPE_CHECKING:
    from .dock import NucpruneDock


def save(dock: NucpruneDock, path: Path) -> str:
    """Write the dock's state beside its pins' layers; returns what to say.

    Raises
    ------
    EnvironmentStopped
        Where a file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    kept = []
    for pin in pins(dock.viewer):
        files = {}
        for kind, layer in pin.layers.items():
            name = f"{path.stem}-{pin.ident}-{kind}.tif"
            arrays[name] = np.asarray(layer.data)
            files[kind] = {"file": name, **_place(layer), "about": _plain(layer.metadata[KEY])}
        kept.append({"ident": pin.ident, "label": pin.label, "layers": files})
    saved.write(path, {**_state(dock), "pins": kept}, arrays)
    return f"Saved {path.name} and {len(arrays)} layers of {len(kept)} pins beside it."


def restore(dock: NucpruneDock, path: Path) -> str:
    """Set the dock as a session says, and bring its pins and sweep back; returns what to say.

    Raises
    ------
    InputError
        Where the session cannot be used; then nothing has changed.
    """
    state, arrays = saved.read(path)
    points = saved.points_of(path, state)
    notes: list[str] = []
    dock.control.live.setChecked(False)
    dock.cancel()
    try:
        _open_checkpoint(dock, state["checkpoint"], notes)
        _open_image(dock, state["image"], notes)
        _set_pruning(dock, state["pruning"], notes)
        names = {pin["ident"]: _add_pin(dock.viewer, pin, arrays) for pin in state["pins"]}
        _set_compare(dock, state["compare"], names, notes)
        sweep = state["sweep"]
        dock.sweep.loss.setValue(sweep["loss"])
        dock.sweeping.restore(points, sweep["about"])
    finally:
        dock.control.live.setChecked(state["live"])
    if not state["live"]:
        dock.run()
    return " ".join([f"Opened {path.name}.", *notes])


def about(dock: NucpruneDock) -> dict[str, str]:
    """Return how the shown result was made, for a report.

    Raises
    ------
    InputError
        Where nothing is compared.
    """
    shown, found = dock.comparing.shown, dock.comparing.comparison
    if shown is None or found is None:
        raise InputError("There is no comparison to report: run, and choose what to compare with.")
    job, preview = shown.job, shown.preview
    height, width = found.fate.differences.shape
    y, x = found.transform[:2, 2]
    recovery = job.recovery if preview.recovered else "off"
    refits = recovery in ("slide", "bundled")
    spent = shown.session.cost(preview.pruning)
    return {
        "image": job.source.name,
        "compared part": f"{width} x {height} px at {found.mpp:.4g} µm/px, from row {y:.0f}, "
        f"column {x:.0f}" + (" (pixel size assumed)" if preview.mpp_assumed else ""),
        "result": preview.pruning.label if found.result == "this result" else found.result,
        "recovery": recovery + (", reselected" if refits and job.reselect else ""),
        "checkpoint": f"{shown.session.checkpoint.name} ({shown.session.checkpoint.sha256[:12]})",
        "weights kept": f"{spent.kept:,} of {spent.total:,}, compute / {spent.compute_ratio:.1f}",
        "nuclei": f"{found.scores.found}, reference {found.scores.truth}",
        "napari-nucprune": __version__,
    }


def _state(dock: NucpruneDock) -> dict[str, Any]:
    layer, pruning, compare = dock.images.layer, dock.pruning, dock.compare
    recovery, reselect = pruning.repair()
    keep = dock.layers.keep
    reference = compare.reference.choice
    if isinstance(reference, Layer):
        reference = {"layer": reference.name}
    points = dock.sweeping.shown_points()
    return {
        "nucprune": __version__,
        "image": {
            "name": None if layer is None else layer.name,
            "path": None if layer is None else layer.source.path,
            "area": dock.image.area.currentText(),
            "mpp": dock.images.typed_mpp(),
        },
        "checkpoint": {
            "origin": dock.origin,
            "sha256": "" if dock.session is None else dock.session.checkpoint.sha256,
        },
        "pruning": {
            "strategy": pruning.strategy.currentText(),
            "recovery": recovery,
            "reselect": reselect,
            "linked": pruning.link.isChecked(),
            "cr": pruning.both.value,
            "cr_semantic": pruning.semantic.value,
            "cr_distance": pruning.distance.value,
            "keep": None if keep is None else list(keep),
        },
        "live": dock.control.live.isChecked(),
        "compare": {
            "result": compare.result.choice or SHOWN,
            "reference": reference or NOTHING,
            "differences": compare.differences.isChecked(),
            "filled": compare.filled.isChecked(),
            "points": compare.points.isChecked(),
            "maps": compare.maps.isChecked(),
        },
        "sweep": {
            "about": dock.sweeping.about,
            "loss": dock.sweep.loss.value(),
            "points": [
                {"strategy": p.strategy, "cr": p.cr, "scores": dict(p.scores),
                 "start": dict(p.start)}
                for p in points
            ],
        },
    }  # fmt: skip


def _open_checkpoint(dock: NucpruneDock, state: dict[str, Any], notes: list[str]) -> None:
    session = dock.session
    if session is None or session.checkpoint.sha256 != state["sha256"]:
        dock.open_checkpoint(state["origin"])
    session = dock.session
    if session is None or session.checkpoint.sha256 != state["sha256"]:
        notes.append(f"The checkpoint {state['origin']} is not the one of the session.")


def _open_image(dock: NucpruneDock, state: dict[str, Any], notes: list[str]) -> None:
    choices = dict(dock.images.choices())
    name, path = state["name"], state["path"]
    if name is not None and name not in choices and path and Path(path).exists():
        try:
            dock.viewer.open(path)
        except Exception as error:
            notes.append(f"{Path(path).name} could not be opened ({str(error)[:80]}).")
        choices = dict(dock.images.choices())
    if name in choices:
        dock.image.layer.value = choices[name]
    elif name is not None:
        notes.append(f"The image {name} is not open: open it, then the session again.")
    dock.image.area.setCurrentText(state["area"])
    if state["mpp"] and dock.images.layer is not None:
        dock.image.mpp.setValue(float(state["mpp"]))


def _set_pruning(dock: NucpruneDock, state: dict[str, Any], notes: list[str]) -> None:
    pruning = dock.pruning
    if pruning.strategy.findText(state["strategy"]) < 0:
        notes.append(f"There is no strategy {state['strategy'][:40]} here.")
    pruning.choose_recovery(state["recovery"])  # first: fine-tuned ones hold the strategy
    pruning.strategy.setCurrentText(state["strategy"])
    pruning.reselect.setChecked(state["reselect"])
    known = set() if dock.session is None else {
        layer.name for layer in dock.session.checkpoint.layers("semantic")
    }  # fmt: skip
    keep = state["keep"]
    dock.layers.set_keep(None if keep is None else [n for n in keep if n in known])
    pruning.link.setChecked(state["linked"])
    pruning.both.set_value(float(state["cr"]))
    pruning.semantic.set_value(float(state["cr_semantic"]))
    pruning.distance.set_value(float(state["cr_distance"]))


def _set_compare(
    dock: NucpruneDock, state: dict[str, Any], names: dict[str, str], notes: list[str]
) -> None:
    compare = dock.compare
    for name in ("differences", "filled", "points", "maps"):
        getattr(compare, name).setChecked(state[name])
    compare.result.choose(names.get(state["result"], state["result"]))
    asked = state["reference"]
    if isinstance(asked, dict):
        layers = [layer for layer in dock.viewer.layers if layer.name == asked.get("layer")]
        if not any(compare.reference.choose(layer) for layer in layers):
            notes.append(f"The layer {str(asked.get('layer'))[:60]} is not open to compare with.")
            compare.reference.choose(DENSE)
    else:
        compare.reference.choose(names.get(asked, asked))


def _add_pin(viewer: Any, pin: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str:
    """Add a pin's layers, under another ident where its own is taken; returns the ident."""
    taken = {own.ident for own in pins(viewer)}
    ident, count = pin["ident"], 1
    while ident in taken:
        count += 1
        ident = f"pin-{count}"
    active = viewer.layers.selection.active
    for kind, layer in pin["layers"].items():
        about = {**layer["about"], "role": f"pinned {kind}", "pin": ident, "label": pin["label"]}
        place = {name: layer[name] for name in ("scale", "translate", "shear", "units")}
        state = {
            "name": f"{kind} · {pin['label']}",
            "metadata": {KEY: about},
            "visible": False,
            "rotate": np.array(layer["rotate"]),
            "affine": np.array(layer["affine"]),
            **place,
        }
        data = arrays[layer["file"]]
        if kind == "instances":
            viewer.add_layer(
                Labels(data, opacity=0.9, colormap=instance_colours(), **state)
            ).contour = 2
        else:
            look = {"colormap": COLORMAPS[kind], "contrast_limits": (0.0, 1.0), "opacity": 0.5}
            viewer.add_layer(Image(data, **look, **state))
    if active is not None:
        viewer.layers.selection.active = active
    return str(ident)


def _place(layer: Layer) -> dict[str, Any]:
    found = {
        name: np.asarray(getattr(layer, name), float).tolist()
        for name in ("scale", "translate", "rotate", "shear")
    }
    affine = np.asarray(layer.affine.affine_matrix).tolist()
    return {**found, "affine": affine, "units": [str(unit) for unit in layer.units]}


def _plain(about: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON takes it."""
    return {
        key: [float(v) for v in value] if isinstance(value, tuple) else value
        for key, value in about.items()
        if value is None or isinstance(value, str | int | float | bool | tuple)
    }
