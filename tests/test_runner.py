"""The runner: latest wins, nothing stale, main thread, clean end."""

import gc
import threading
import time
import weakref

import pytest

pytest.importorskip("qtpy")
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.widgets.runner import SHOWN_EVERY, Runner, Seldom


@pytest.fixture
def runner(qtbot):
    runner = Runner()
    yield runner
    runner.close()


def slow(value, log, seconds=0.05):
    def work(progress, should_stop):
        log.append(value)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if should_stop():
                raise Cancelled("stopped")
            time.sleep(0.002)
        return value

    return work


def test_many_requests_deliver_the_last_and_only_fresh_ones(runner, qtbot):
    started, shown = [], []
    for value in range(30):
        runner.request(slow(value, started), shown.append)
    qtbot.waitUntil(lambda: not runner.busy, timeout=5000)
    assert shown == [29]
    # The first was in flight, the last was pending, those between were replaced.
    assert started == [0, 29] or started == [29]


def test_at_most_one_runs_at_a_time(runner, qtbot):
    inside, most = [0], [0]

    def work(progress, should_stop):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1

    for _ in range(10):
        runner.request(work, lambda _: None)
        qtbot.wait(7)
    qtbot.waitUntil(lambda: not runner.busy, timeout=5000)
    assert most[0] == 1


def test_results_arrive_on_the_main_thread(runner, qtbot):
    threads = []

    def work(progress, should_stop):
        threads.append(threading.current_thread())

    runner.request(work, lambda _: threads.append(threading.current_thread()))
    qtbot.waitUntil(lambda: len(threads) == 2, timeout=5000)
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


@pytest.mark.parametrize("error", [InputError("wrong"), RuntimeError("torch says"), MemoryError()])
def test_errors_are_reported_whatever_their_type(runner, qtbot, error):
    failed, shown = [], []
    runner.failed.connect(failed.append)

    def work(progress, should_stop):
        raise error

    runner.request(work, shown.append)
    qtbot.waitUntil(lambda: not runner.busy, timeout=5000)
    assert failed == [error]
    assert not shown


def test_cancel_delivers_nothing_and_says_nothing(runner, qtbot):
    failed, shown, started = [], [], []
    runner.failed.connect(failed.append)
    runner.request(slow(1, started, seconds=10), shown.append)
    runner.request(slow(2, started, seconds=10), shown.append)
    qtbot.waitUntil(lambda: bool(started), timeout=5000)
    begun = time.monotonic()
    runner.cancel()
    qtbot.waitUntil(lambda: not runner.busy, timeout=5000)
    assert time.monotonic() - begun < 2
    assert not shown
    assert not failed


def test_done_may_ask_for_more(runner, qtbot):
    shown = []

    def first(value):
        shown.append(value)
        runner.request(slow("second", []), shown.append)

    runner.request(slow("first", []), first)
    qtbot.waitUntil(lambda: len(shown) == 2, timeout=5000)
    qtbot.waitUntil(lambda: not runner.busy, timeout=5000)
    assert shown == ["first", "second"]


def test_close_in_mid_run_ends_the_thread(qtbot):
    runner, shown, started = Runner(), [], []
    runner.request(slow(1, started, seconds=30), shown.append)
    qtbot.waitUntil(lambda: bool(started), timeout=5000)
    runner.close()
    qtbot.wait(50)
    assert not shown
    assert not [t for t in threading.enumerate() if t.name.startswith("nucprune") and t.is_alive()]
    runner.request(slow(2, started), shown.append)
    assert started == [1]


def test_the_background_is_not_busy_and_gives_way(runner, qtbot):
    begun, ended, delivered, busy = threading.Event(), [], [], []
    runner.busy_changed.connect(busy.append)

    def endless(progress, should_stop):
        begun.set()
        while not should_stop():
            time.sleep(0.001)
        ended.append(threading.current_thread().name)

    runner.background(endless, delivered.append)
    assert begun.wait(5)
    assert not runner.busy
    assert busy == []
    runner.background(endless, delivered.append)  # one at a time: dropped
    runner.request(lambda progress, should_stop: "asked", delivered.append)
    assert runner.busy
    with qtbot.waitSignal(runner.idle, timeout=5000):
        pass
    assert delivered == ["asked"]
    assert len(ended) == 1
    assert (busy[0], busy[-1]) == (True, False)
    # A request that is cancelled while it waits for the background leaves nothing busy.
    begun.clear()
    runner.background(endless, delivered.append)
    assert begun.wait(5)
    runner.request(lambda progress, should_stop: "cancelled", delivered.append)
    runner.cancel()
    assert not runner.busy
    assert busy[-1] is False
    with qtbot.waitSignal(runner.idle, timeout=5000):
        pass
    assert delivered == ["asked"]


def test_the_background_fails_silently_and_waits_for_requests(runner, qtbot):
    failed, delivered = [], []
    runner.failed.connect(failed.append)

    def wrong(progress, should_stop):
        raise InputError("wrong")

    with qtbot.waitSignal(runner.idle, timeout=5000):
        runner.background(wrong, delivered.append)
    assert (failed, delivered) == ([], [])
    runner.request(lambda progress, should_stop: time.sleep(0.05), delivered.append)
    runner.background(wrong, delivered.append)  # something runs: dropped
    with qtbot.waitSignal(runner.idle, timeout=5000):
        pass
    assert delivered == [None]
    assert runner.runs == 1


def test_progress_is_shown_seldom_and_the_newest_of_it(qtbot):
    seen, begun = [], time.monotonic()
    progress = Seldom(lambda *report: seen.append((report, time.monotonic() - begun)))
    for step in range(100):
        progress.take("tiles", step, 100)
        qtbot.wait(10)
    steps = [report[1] for report, _ in seen]
    assert 1 <= len(seen) <= (time.monotonic() - begun) / SHOWN_EVERY
    assert seen[0][1] >= SHOWN_EVERY * 0.9  # what is over sooner is not shown
    assert steps == sorted(set(steps))
    # A part that takes long and reports once is shown.
    progress.take("writing", 0, 1)
    qtbot.waitUntil(lambda: seen[-1][0] == ("writing", 0, 1), timeout=2000)
    shown = len(seen)
    progress.take("late", 1, 1)
    progress.stop()
    qtbot.wait(round(1500 * SHOWN_EVERY))
    assert len(seen) == shown


def test_a_timer_that_outlives_the_dock_calls_nothing(qapp):
    """Python's collector took what the timer called, Qt the timer only later: the process died."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QWidget

    from napari_nucprune.widgets.file_size import FileSize

    class Dock(QWidget):
        def __init__(self):
            super().__init__()
            self.size = FileSize(self, None)
            self.size._later.start(50)
            self.progress = Seldom(self.shown, self)
            self.progress.take(1)

        def timer(self, action):
            timer = QTimer(self)
            timer.timeout.connect(action)
            return timer

        def shown(self, step):
            heard.append(step)

    heard, dock = [], Dock()
    gone = weakref.ref(dock.size)
    dock.close()
    dock.deleteLater()
    del dock
    gc.collect()
    assert gone() is None
    until = time.monotonic() + 2 * SHOWN_EVERY
    while time.monotonic() < until:
        qapp.processEvents()  # no turn of a loop: what is to be deleted later stays
    assert not heard
