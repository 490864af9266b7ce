"""A dock that was closed by its x goes: napari takes it out of the window and leaves it alive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QTimer

from . import layers

if TYPE_CHECKING:
    from .dock import NucpruneDock


class Leaving(QObject):
    """Deletes a dock that has lost its parent, so that nothing unseen follows the viewer.

    napari's ``remove_dock_widget``, which the x of a dock calls, hands the inner widget back
    without a parent: it would go on running the network at every move of the camera, beside the
    dock that is opened next. Who adds it to a window again before Qt's next turn keeps it.

    Parameters
    ----------
    dock
        Which one.
    """

    def __init__(self, dock: NucpruneDock) -> None:
        super().__init__(dock)
        self.dock = dock
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._leave)
        dock.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """See the dock lose its parent."""
        if event.type() == QEvent.Type.ParentChange and self.dock.parent() is None:
            self._soon.start()
        return False

    def _leave(self) -> None:
        dock = self.dock
        if dock.parent() is not None or dock.isVisible():
            return
        dock.views.close()
        dock.close()
        # Before the widgets go: what ends now would still report to them.
        for close in (dock.runner.close, dock.file_size.close, dock.whole.close_down):
            close()
        ours = (dock, dock.images, dock.views, dock.sweeping, dock.comparing.references)
        for emitter in _emitters(dock.viewer):
            for callback in list(emitter.callbacks):
                if isinstance(callback, tuple) and any(callback[0]() is own for own in ours):
                    emitter.disconnect(callback)
        dock.deleteLater()


def _emitters(viewer: Any) -> Iterator[Any]:
    """Yield everything in a viewer that emits events."""
    camera = layers.camera_of(viewer)
    for owner in (viewer, camera, viewer.dims, viewer.layers, *viewer.layers):
        yield from owner.events.emitters.values()
