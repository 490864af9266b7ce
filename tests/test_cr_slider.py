"""The logarithmic slider."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("qtpy")
from napari_nucprune.widgets.cr_slider import STOPS, TICKS, CRSlider, cr_of, tick_of


@pytest.mark.parametrize("stop", STOPS)
def test_every_stop_is_reached_exactly(stop):
    assert cr_of(tick_of(stop)) == stop


@given(st.integers(0, TICKS - 1))
def test_monotone(tick):
    assert 1 <= cr_of(tick) <= cr_of(tick + 1) <= 64


def test_box_and_slider_follow_each_other_and_emit_once(qtbot):
    widget = CRSlider("both")
    qtbot.addWidget(widget)
    seen = []
    widget.changed.connect(seen.append)
    widget.box.setValue(16)
    assert widget.slider.value() == tick_of(16)
    widget.slider.setValue(tick_of(5) + 2)
    assert widget.box.value() == 5
    assert seen == [16.0, 5.0]


def test_limits_hold(qtbot):
    widget = CRSlider("both")
    qtbot.addWidget(widget)
    widget.set_limits(4.0, 20.0)
    assert widget.value == 4
    widget.slider.setValue(TICKS)
    assert widget.value == 20
    widget.slider.setValue(0)
    assert widget.value == 4
