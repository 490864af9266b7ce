"""The dock's settings: in napari's own (from 0.9 on, in its Preferences), else a small JSON."""

from __future__ import annotations

from collections.abc import Callable
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
        self.now = replace(self.now, checkpoint=origin)
        self._changed()

    def _changed(self, _: Any = None) -> None:
        self._rest.start()

    def flush(self) -> None:
        """Write what was changed now."""
        if not self._rest.isActive() and self.sender() is not self._rest:
            return
        self._rest.stop()
        controls = self.controls
        self.now = replace(
            self.now,
            cr=min(max(min(controls.pruning.ratios()), 1.0), 64.0),
            live=controls.control.live.isChecked(),
        )
        write(self.now)


def read() -> tuple[settings.Settings, str]:
    """Return what is remembered, and a sentence where it was damaged; see `settings.read`."""
    section, said = _section()
    if section is None:
        found, also = settings.read()
        return found, said or also
    found, bad = settings.checked(
        {name: getattr(section, name) for name in asdict(settings.Settings())}
    )
    return found, said or (
        f"Settings were wrong ({', '.join(bad)}); defaults serve." if bad else ""
    )


def write(found: settings.Settings) -> None:
    """Remember settings."""
    section, _ = _section()
    if section is None:
        settings.write(found)
        return
    for name, value in asdict(found).items():
        if getattr(section, name) != value:
            setattr(section, name, value)  # napari saves by itself


def _section() -> tuple[Any, str]:
    """Return our part of napari's settings, None where napari has none, and what to tell."""
    import napari.settings

    get = getattr(napari.settings, "get_plugin_settings", None)
    if get is None:
        return None, ""
    try:
        return getattr(get(PLUGIN), SECTION), ""
    except (KeyError, AttributeError):  # not installed as a plugin
        return None, ""
    except Exception as error:
        return None, (
            f"napari's settings of this plugin cannot be read ({type(error).__name__}); those of "
            "its own file serve."
        )
