"""Jobs in one background thread: latest wins, at most one in flight and one pending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from ..doors import Progress, ShouldStop
from ..errors import Cancelled

#: Seconds between two steps of progress that are shown, and before the first: each draws the whole
#: window anew, which without a graphics card takes the network's time.
SHOWN_EVERY = 0.3

#: ``work(progress, should_stop)`` returns the result.
Work = Callable[[Progress, ShouldStop], Any]


class Seldom(QObject):
    """Passes on the newest of what it takes, at most once in `SHOWN_EVERY`.

    What is overtaken, or stopped, sooner than that is not shown at all.

    Parameters
    ----------
    show
        Called with the newest arguments, on the main thread.
    parent
        What it shows it on; it goes with that.
    """

    def __init__(self, show: Callable[..., Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._show = show
        self._newest: tuple[Any, ...] = ()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._pass_on)

    def take(self, *newest: Any) -> None:
        """Show this, soon."""
        self._newest = newest
        if not self._timer.isActive():
            self._timer.start(round(1000 * SHOWN_EVERY))

    def stop(self) -> None:
        """Show nothing until it takes more."""
        self._timer.stop()

    def _pass_on(self) -> None:
        self._show(*self._newest)


@dataclass(eq=False)
class _Task:
    work: Work
    done: Callable[[Any], None]
    background: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


class Runner(QObject):
    """Runs work off the main thread.

    A new request replaces the pending one and asks the running one to stop; what a stopped task
    returns is never delivered. ``done`` callbacks and signals arrive on the main thread.
    Background work runs only while there is no request, and gives way to the next one at once.

    One thread of our own for all runs: torch keeps its thread team, errors cannot get lost in a
    worker class, and quitting waits for nothing but it.
    """

    progressed = Signal(str, int, int)
    failed = Signal(object)
    busy_changed = Signal(bool)
    #: Nothing runs or waits any more, in the background neither.
    idle = Signal()
    _arrived = Signal(object, bool, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._running: _Task | None = None
        self._pending: _Task | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nucprune")
        self.runs = 0
        # Emitted in the thread, received on the main one: Qt queues it.
        self._arrived.connect(self._receive)

    @property
    def busy(self) -> bool:
        """Whether anything that was requested runs or waits."""
        running = self._running is not None and not self._running.background
        return running or self._pending is not None

    def request(self, work: Work, done: Callable[[Any], None]) -> None:
        """Run ``work`` as soon as possible, then ``done(result)`` on the main thread."""
        if self._closed:
            return
        task = _Task(work, done)
        if self._running is None:
            self._start(task)
        else:
            self._running.stop.set()
            self._pending = task
            self.busy_changed.emit(True)

    def background(self, work: Work, done: Callable[[Any], None]) -> None:
        """Run ``work`` where nothing else runs or waits, then ``done(result)``; it fails silently.

        The runner is not busy with it. A request stops it, and then nothing is delivered.
        """
        if not self._closed and self._running is None:
            self._start(_Task(work, done, background=True))

    def stop_background(self) -> None:
        """Stop what runs in the background."""
        if self._running is not None and self._running.background:
            self._running.stop.set()

    def cancel(self) -> None:
        """Drop the pending task and stop the running one within one tile."""
        waited, self._pending = self._pending is not None, None
        if self._running is not None:
            self._running.stop.set()
        if waited and not self.busy:  # it waited for work in the background
            self.busy_changed.emit(False)

    def close(self) -> None:
        """Cancel, and wait for the thread; nothing is delivered any more."""
        self._closed = True
        self.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._running = None

    def _start(self, task: _Task) -> None:
        self._running = task
        if not task.background:
            self.runs += 1
            self.busy_changed.emit(True)
        self._thread.submit(self._work, task)

    def _work(self, task: _Task) -> None:
        def report(text: str, done: int, total: int) -> None:
            if not task.stop.is_set():
                self.progressed.emit(text, done, total)

        try:
            ok, value = True, task.work(report, task.stop.is_set)
        except Exception as error:
            ok, value = False, error
        if not self._closed:
            self._arrived.emit(task, ok, value)

    def _receive(self, task: _Task, ok: bool, value: Any) -> None:
        if self._closed or self._running is not task:
            return
        self._running = None
        pending, self._pending = self._pending, None
        try:
            if not task.stop.is_set():
                if ok:
                    task.done(value)
                elif not task.background and not isinstance(value, Cancelled):
                    self.failed.emit(value)
        finally:
            # ``done`` may have asked for more.
            if pending is not None and self._running is None:
                self._start(pending)
            elif self._running is None:
                if not task.background:
                    self.busy_changed.emit(False)
                self.idle.emit()
