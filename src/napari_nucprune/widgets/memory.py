"""The dock's settings: in napari's own (from 0.9 on, in its Preferences), else a small JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from .. import settings

if TYPE_CHECKING:
    from .controls import Controls

#: As in the manifest.
PLUGIN, SECTION = "napari-nucprune", "dock"
#: The file is written when nothing was changed for so long.
REST_MS = 1500


class Memory(QObject):
    """Restores what was remembered and remembers what is changed.

    Parameters
    ----------
    controls
        The dock; its last changes are written by `flush`.
    """

    def __init__(self, controls: Controls) -> None:
        super().__init__(controls)  # so that its timer dies with the dock
        self.controls = controls
        self.now, self.said = read()
        #: What is not written yet.
        self._new: dict[str, Any] = {}
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self.flush)

    def restore(self, opened: Callable[[str], bool], default: str) -> None:
        """Put the dock's controls where they were, then follow them.

        Parameters
        ----------
        opened
            Opens a checkpoint by name or path; False where it could not.
        default
            What to open instead.
        """
        controls, origin = self.controls, self.now.checkpoint
        controls.control.live.setChecked(self.now.live)
        if origin and origin != default and not opened(origin):
            self.said = self.said or (
                f"The last checkpoint, {Path(origin).name}, could not be opened; {default} serves."
            )
            opened(default)
        elif not origin or origin == default:
            opened(default)
        controls.pruning.both.set_value(self.now.cr)
        controls.control.live.toggled.connect(self._changed)
        for slider in controls.pruning.sliders:
            slider.changed.connect(self._changed)

    def opened(self, origin: str) -> None:
        """Remember a checkpoint that can be opened again by its name or path alone."""
        self._new["checkpoint"] = origin
        self._changed()

    @property
    def device(self) -> str:
        """The device as it is set now, in napari's Preferences perhaps."""
        return read()[0].device

    def _changed(self, _: Any = None) -> None:
        self._rest.start()

    def flush(self) -> None:
        """Write what the dock changed, and nothing else: others may have changed the rest."""
        if not self._rest.isActive() and self.sender() is not self._rest:
            return
        self._rest.stop()
        controls = self.controls
        now = {
            **self._new,
            "cr": min(max(min(controls.pruning.ratios()), 1.0), 64.0),
            "live": controls.control.live.isChecked(),
        }
        self._new = {}
        write({name: value for name, value in now.items() if value != getattr(self.now, name)})
        self.now = replace(self.now, **now)


def read() -> tuple[settings.Settings, str]:
    """Return what is remembered, and a sentence where it was damaged; see `settings.read`."""
    section, said = _section(repair=True)
    if section is None:
        found, also = settings.read()
        return found, said or also
    found, bad = settings.checked(
        {name: getattr(section, name) for name in asdict(settings.Settings())}
    )
    return found, said or (
        f"Settings were wrong ({', '.join(bad)}); defaults serve." if bad else ""
    )


def write(new: Mapping[str, Any]) -> None:
    """Remember settings by name; the others stay."""
    section, _ = _section()
    if section is None:
        settings.write(replace(settings.read()[0], **new))
        return
    for name, value in new.items():
        if getattr(section, name) != value:
            setattr(section, name, value)  # napari saves by itself


def _section(repair: bool = False) -> tuple[Any, str]:
    """Return our part of napari's settings, None where napari has none, and what to tell.

    ``repair`` looks into its file too, and replaces a damaged one.
    """
    import napari.settings

    get = getattr(napari.settings, "get_plugin_settings", None)
    if get is None:
        return None, ""
    aside = ""
    try:
        try:
            found = get(PLUGIN)
        except AssertionError:  # napari's answer to YAML that is no mapping
            aside = _set_aside(Path(napari.settings.get_settings().config_path))
            found = get(PLUGIN)
        return getattr(found, SECTION), aside or (_repaired(found) if repair else "")
    except (KeyError, AttributeError):  # not installed as a plugin
        return None, ""
    except Exception as error:
        return None, (
            f"napari's settings of this plugin cannot be read ({type(error).__name__}); those of "
            "its own file serve."
        )


def _set_aside(of_napari: Path) -> str:
    """Rename the plugin's file beside napari's own; return what to tell."""
    path = of_napari.with_name(f"{PLUGIN}.yaml")
    path.replace(path.with_suffix(".BAK.yaml"))
    return settings.replaced(path, ["all of it"])


def _repaired(found: Any) -> str:
    """Replace a damaged file of napari's, which itself only logs it; return what to tell."""
    path = Path(found.config_path) if found.config_path else None
    if path is None or not path.is_file():
        return ""
    import yaml

    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        if stored is not None and not isinstance(stored, dict):
            raise ValueError("no mapping")
        own = (stored or {}).get(SECTION) or {}
        bad = settings.checked(own)[1] if isinstance(own, dict) else ["all of it"]
    except OSError:
        return ""
    except Exception:
        bad = ["all of it"]
    if not bad:
        return ""
    found.save()
    return settings.replaced(path, bad)
