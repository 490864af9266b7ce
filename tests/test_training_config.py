import pytest

from helpers import is_one_line, write_pairs
from napari_nucprune.errors import InputError
from napari_nucprune.training.config import load_config
from napari_nucprune.training.mixture import prepare

GOOD = """
widths = [2, 4]
steps = 10
crop = 32
scale = [0.9, 1.1]
[[data]]
layout = "pairs"
path = "set"
weight = 2
validation = ["a"]
mpp = 0.5
"""


@pytest.fixture
def written(tmp_path):
    write_pairs(tmp_path / "set", 40, 60)
    path = tmp_path / "my run.toml"
    path.write_text(GOOD)
    return path


def test_a_configuration(written):
    config = load_config(written)
    assert (config.name, config.widths, config.steps, config.scale) == (
        "my run",
        (2, 4),
        10,
        (0.9, 1.1),
    )
    (data,) = config.data
    assert (data.layout, data.weight, data.validation) == ("pairs", 2.0, ("a",))
    assert data.path == written.parent / "set"
    assert data.options == {"mpp": 0.5}
    assert load_config(written, seed=8).seed == 8


def test_prepared_data(written):
    config = load_config(written)
    training, validation, _ = prepare(config)
    assert [image.name for image in training] == ["b", "c"]
    assert [item.name for item in validation["pairs"]] == ["a"]
    for image in training:
        assert image.weight == 2
        # From 0.5 um/px to the network's 0.25: twice the size, and so are the distances.
        assert image.rgb.shape == (80, 120, 3)
        assert image.targets.shape == (80, 120, 2)
        assert image.targets[..., 0].sum() == 4 * 200
        assert image.targets[..., 1].max() * config.distance_unit_um == pytest.approx(10 * 0.25)


def test_a_set_without_a_pixel_size_takes_one_from_its_table(written):
    organ = written.parent / "nuinsseg" / "human liver"
    write_pairs(organ, 40, 60)
    (organ / "images").rename(organ / "tissue images")
    (organ / "labels").rename(organ / "label masks modify")
    text = GOOD.replace('"pairs"', '"nuinsseg"').replace('"set"', '"nuinsseg"')
    text = text.replace('["a"]', "[]")
    written.write_text(text.replace("mpp = 0.5", ""))
    with pytest.raises(InputError, match=r"set mpp in its \[\[data\]\] table"):
        prepare(load_config(written))
    written.write_text(text)
    training = prepare(load_config(written)).training
    assert {image.rgb.shape for image in training} == {(80, 120, 3)}


def test_validation_that_cannot_be(written):
    for old, new, text in (
        ('["a"]', '["z"]', "'z'"),
        ('["a"]', '["a", "b", "c"]', "nothing is left"),
        ("mpp = 0.5", "", "mpp"),
        ('"pairs"', '"imagenet"', "imagenet"),
        ('"set"', '"nowhere"', "nowhere"),
        ("mpp = 0.5", "colour = 1", "colour"),
    ):
        written.write_text(GOOD.replace(old, new))
        with pytest.raises(InputError, match=text) as caught:
            prepare(load_config(written))
        assert is_one_line(caught.value)


BAD = {
    "not-toml": ("steps = 10", "steps = = 10"),
    "unknown-key": ("steps = 10", "step = 10"),
    "no-data": (GOOD[GOOD.index("[[data]]") :], ""),
    "data-no-table": (GOOD[GOOD.index("[[data]]") :], "data = [1]"),
    "data-no-list": ("[[data]]", "[data]"),
    "no-layout": ('layout = "pairs"', ""),
    "no-path": ('path = "set"', ""),
    "path-number": ('path = "set"', "path = 5"),
    "layout-number": ('layout = "pairs"', "layout = 5"),
    "weight-text": ("weight = 2", 'weight = "much"'),
    "weight-zero": ("weight = 2", "weight = 0"),
    "weight-negative": ("weight = 2", "weight = -1"),
    "validation-number": ('validation = ["a"]', "validation = 5"),
    "widths-number": ("widths = [2, 4]", "widths = 5"),
    "widths-text": ("widths = [2, 4]", 'widths = ["a", "b"]'),
    "widths-zero": ("widths = [2, 4]", "widths = [2, 0]"),
    "widths-one": ("widths = [2, 4]", "widths = [2]"),
    "scale-number": ("scale = [0.9, 1.1]", "scale = 1.0"),
    "scale-three": ("scale = [0.9, 1.1]", "scale = [1, 1, 1]"),
    "scale-zero": ("scale = [0.9, 1.1]", "scale = [0, 1]"),
    "steps-text": ("steps = 10", 'steps = "ten"'),
    "steps-zero": ("steps = 10", "steps = 0"),
    "steps-fraction": ("steps = 10", "steps = 10.5"),
    "crop-grid": ("crop = 32", "crop = 33"),
    "crop-fraction": ("crop = 32", "crop = 32.0"),
    "lr-inf": ("steps = 10", "lr = inf"),
    "lr-nan": ("steps = 10", "lr = nan"),
    "mpp-zero": ("steps = 10", "mpp = 0"),
    "mpp-inf": ("steps = 10", "mpp = inf"),
    "dropout-two": ("steps = 10", "dropout = 2"),
    "colour-text": ("steps = 10", 'colour = "red"'),
    "save-never": ("steps = 10", "save_every = 0"),
    "seed-negative": ("steps = 10", "seed = -1"),
    "threads-negative": ("steps = 10", "threads = -1"),
    "unit-negative": ("steps = 10", "distance_unit_um = -4"),
    "name-number": ("steps = 10", "name = 5"),
    "branches-none": ("steps = 10", "branches = []"),
    "branches-twice": ("steps = 10", 'branches = ["semantic", "semantic"]'),
    "branches-unknown": ("steps = 10", 'branches = ["distanz"]'),
    "branches-text": ("steps = 10", 'branches = "semantic"'),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_configuration(case, written):
    old, new = BAD[case]
    assert old in GOOD
    written.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_config(written)
    assert is_one_line(caught.value), str(caught.value)
    assert "my run.toml" in str(caught.value)


def test_a_configuration_that_is_no_file(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "binary.toml"):
        with pytest.raises(InputError) as caught:
            load_config(path)
        assert is_one_line(caught.value)
