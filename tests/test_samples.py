"""The sample images: exactness of the synthetic field, and the download that must leave no rubbish."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from scipy import ndimage

from napari_nucprune import samples
from napari_nucprune.errors import InputError

DATA = Path(__file__).parents[2] / "shared" / "data"
CMU = DATA / "WSI" / "CMU-1-Small-Region.svs"


def touching(labels: np.ndarray) -> set[int]:
    """Labels that share a pixel edge with another one."""
    found: set[int] = set()
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        edge = (a != b) & (a > 0) & (b > 0)
        found |= set(a[edge].tolist()) | set(b[edge].tolist())
    return found


@pytest.mark.parametrize(
    ("seed", "size", "density", "share", "mpp"),
    [(0, 384, 5000, 0.3, 0.25), (1, 256, 4000, 0.0, 0.5), (2, 256, 5000, 1.0, 0.25)],
)
def test_ground_truth_is_exact(
    seed: int, size: int, density: float, share: float, mpp: float
) -> None:
    rgb, labels = samples.synthetic(seed, size, density, share, mpp)
    assert rgb.shape == (size, size, 3)
    assert rgb.dtype == np.uint8
    assert labels.shape == (size, size)
    assert labels.dtype == np.int32
    count = int(labels.max())
    assert count == round(density * (size * mpp / 1000) ** 2)
    assert set(np.unique(labels)) == set(range(count + 1))
    four = ndimage.generate_binary_structure(2, 1)
    for index, where in enumerate(ndimage.find_objects(labels), 1):
        assert ndimage.label(labels[where] == index, four)[1] == 1, index
    assert len(touching(labels)) / count == pytest.approx(share, abs=0.1)


def test_nuclei_look_like_nuclei() -> None:
    rgb, labels = samples.synthetic(3, 384)
    inside, outside = rgb[labels > 0].mean(0), rgb[labels == 0].mean(0)
    # Haematoxylin takes the red away, eosin the green.
    assert inside[0] < outside[0] - 60
    assert inside.mean() < outside.mean() - 30
    assert inside[2] > inside[0] > inside[1]
    assert outside[0] > outside[1] + 20
    for index in range(1, labels.max() + 1):
        assert rgb[labels == index, 0].mean() < outside[0] - 30, index
    # The red channel steps at the border, so the labels are not shifted against the image.
    edge = (labels > 0) & ~ndimage.binary_erosion(labels > 0)
    ring = ndimage.binary_dilation(labels > 0, iterations=2) & (labels == 0)
    assert rgb[edge, 0].mean() < rgb[ring, 0].mean() - 25


def test_seeds() -> None:
    first, again = samples.synthetic(7, 128), samples.synthetic(7, 128)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (samples.synthetic(8, 128)[1] != first[1]).any()


@pytest.mark.parametrize(("size", "density"), [(1, 5000), (64, 0), (17, 60000)])
def test_small_empty_and_crowded_fields(size: int, density: float) -> None:
    rgb, labels = samples.synthetic(0, size, density)
    assert rgb.shape == (size, size, 3)
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    assert density > 0 or labels.max() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"density": -1},
        {"density": np.nan},
        {"touching": 1.1},
        {"mpp": 0},
        {"mpp": np.inf},
    ],
)
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        samples.synthetic(**wrong)  # type: ignore[arg-type]


def test_tissue_has_no_brown_left() -> None:
    from skimage import data

    before, after = data.immunohistochemistry().astype(int), samples.tissue()
    assert after.shape == (512, 512, 3)
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(after, samples.tissue())
    brown = before[..., 0] > before[..., 2] + 60
    assert brown.mean() > 0.2
    # Eosin takes mostly green away, DAB mostly blue.
    assert (before[brown, 1] > before[brown, 2]).mean() > 0.9
    assert (after[brown, 1] < after[brown, 2]).mean() > 0.9


def test_layers_of_tissue_and_synthetic() -> None:
    ((rgb, attributes, kind),) = samples.tissue_sample()
    assert kind == "image"
    assert rgb.shape == (512, 512, 3)
    assert attributes["name"] == "immunohistochemistry, DAB repainted as eosin"
    assert "scale" not in attributes
    assert "units" not in attributes
    (image, about, _), (labels, truth, kind) = samples.synthetic_sample()
    assert kind == "labels"
    assert image.shape[:2] == labels.shape
    assert about["scale"] == truth["scale"] == (0.25, 0.25)
    assert about["units"] == truth["units"] == ("um", "um")
    assert truth["visible"] is False


# ---------------------------------------------------------------- the download


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda name: folder / name)
    return folder / "napari-nucprune"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A server of whatever lies in the list: one body, announced too long if there are two."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if bodies else 404)
            self.send_header("Content-Length", str(sum(map(len, bodies))))
            self.end_headers()
            if bodies:
                self.wfile.write(bodies[0])

        def log_message(self, *args: object) -> None:
            pass

    web = HTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=web.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setattr(samples, "SLIDE_URL", f"http://127.0.0.1:{web.server_port}/a/slide.svs")
    yield bodies
    web.shutdown()
    thread.join()
    web.server_close()


def refused(cache: Path) -> None:
    with pytest.raises(InputError) as error:
        samples.slide_sample()
    text = str(error.value)
    assert "\n" not in text
    assert samples.SLIDE_URL in text
    assert "Open slide..." in text
    assert not cache.exists() or not list(cache.iterdir())


def test_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(samples, "SLIDE_URL", "http://127.0.0.1:9/slide.svs")
    refused(cache)


def test_absent_wrong_and_interrupted(cache: Path, server: list[bytes]) -> None:
    refused(cache)
    server.append(b"a page that says something else")
    refused(cache)
    server.append(b"the rest that never comes")
    refused(cache)


def test_downloaded_once(cache: Path, server: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"stands for the slide"
    monkeypatch.setattr(samples, "SLIDE_SHA256", hashlib.sha256(body).hexdigest())
    server.append(body)
    path = samples.fetch_slide()
    assert path.read_bytes() == body
    assert [p.name for p in cache.iterdir()] == ["slide.svs"]
    server.clear()
    assert samples.fetch_slide() == path


def test_the_slide_itself(cache: Path) -> None:
    if not CMU.exists():
        pytest.skip(f"{CMU} is not here")
    cache.mkdir(parents=True)
    (cache / "CMU-1-Small-Region.svs").write_bytes(CMU.read_bytes())
    ((data, attributes, _),) = samples.slide_sample()
    assert data.shape == (2967, 2220, 3)
    assert attributes["scale"] == (0.499, 0.499)
