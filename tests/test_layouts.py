"""NuInsSeg, CryoNuSeg, CoNSeP and DSB2018: real samples, and folders made here."""

import logging
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from helpers import noise
from layouts_helpers import BOX, SIDE, rois
from napari_nucprune import cli
from napari_nucprune.cli import main
from napari_nucprune.datasets.consep import labels_from_mat
from napari_nucprune.datasets.registry import LAYOUTS, open_folder
from napari_nucprune.errors import InputError
from test_datasets import aperio, foreground_iou, refused, square


def image(path, side=SIDE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(0, side, side)).save(path)


def label_map(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.random.default_rng(seed).integers(0, 9, (SIDE, SIDE)).astype(np.uint16)
    if path.suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        Image.fromarray(labels).save(path)
    return labels


# --- NuInsSeg -----------------------------------------------------------------------------------


def test_nuinsseg(shared_data):
    folder = open_folder(shared_data / "NuInsSeg", "nuinsseg")
    items = list(folder)
    assert [i.name for i in items] == ["human_bladder_01", "human_bladder_02"]
    assert [i.labels.max() for i in items] == [24, 3]
    for item in items:
        assert (item.patient, item.mpp, item.licence) == ("human bladder", None, "CC BY 4.0")
        binary = shared_data / "NuInsSeg" / "human bladder" / "mask binary" / f"{item.name}.png"
        truth = np.asarray(Image.open(binary))
        assert foreground_iou(item.labels, truth) > 0.995
    one = open_folder(shared_data / "NuInsSeg" / "human bladder", "nuinsseg")
    assert len(one) == 2


def nuinsseg(root):
    for organ in ("human liver", "mouse heart"):
        image(root / organ / "tissue images" / f"{organ}_01.png")
        rois(root / organ / "Imagej_zips" / f"{organ}_01.zip", a=BOX)
        label_map(root / organ / "label masks" / f"{organ}_01.tif")


def test_nuinsseg_takes_modified_maps_before_rois_and_never_the_sums(tmp_path):
    nuinsseg(tmp_path)
    wanted = label_map(tmp_path / "mouse heart" / "label masks modify" / "mouse heart_01.tif", 5)
    liver, heart = open_folder(tmp_path, "nuinsseg")
    np.testing.assert_array_equal(heart.labels, wanted)
    assert liver.labels.max() == 1
    assert (liver.patient, heart.patient) == ("human liver", "mouse heart")
    (tmp_path / "human liver" / "Imagej_zips" / "human liver_01.zip").unlink()
    assert "human liver/human liver_01.png" in refused(tmp_path, "nuinsseg")
    shutil.rmtree(tmp_path / "human liver" / "tissue images")
    assert "no image human liver/tissue images/*.png" in refused(tmp_path, "nuinsseg")
    shutil.rmtree(tmp_path / "human liver")
    (tmp_path / "notes").mkdir()
    assert len(open_folder(tmp_path, "nuinsseg")) == 1


# --- CryoNuSeg ----------------------------------------------------------------------------------


def test_cryonuseg_early(shared_data):
    items = list(open_folder(shared_data / "CryoNuSeg_early", "cryonuseg"))
    assert [i.patient for i in items] == ["TCGA-DE-A4MA", "TCGA-S4-A8RO"]
    assert [i.labels.max() for i in items] == [59, 117]
    # What the files say themselves, in ImageJ's way.
    assert [round(i.mpp, 4) for i in items] == [0.248, 0.2525]
    assert all(i.rgb.shape == (512, 512, 3) for i in items)


def cryonuseg(root):
    image(root / "tissue images" / "Human_Skin_01.tif")
    image(root / "tissue images" / "Human_Larynx_02.tif")
    first = root / "Annotator 1 (biologist)"
    second = root / "Annotator 2 (bioinformatician)" / "Annotator 2 (bioinformatician)"
    maps = {}
    for name in ("Human_Skin_01", "Human_Larynx_02"):
        maps[name] = label_map(first / "label masks modify" / f"{name}.tif")
        rois(second / "Imagej_zips" / f"{name}.zip", a=BOX, b=[(14, 14), (20, 14), (14, 20)])
    return maps


def test_cryonuseg_names_its_annotator(tmp_path):
    maps = cryonuseg(tmp_path)
    for item in open_folder(tmp_path, "cryonuseg"):
        np.testing.assert_array_equal(item.labels, maps[item.name])
        assert (item.annotator, item.patient, item.mpp) == ("biologist", item.name, 0.25)
    for item in open_folder(tmp_path, "cryonuseg", annotator="bioinformatician"):
        assert (item.annotator, item.labels.max()) == ("bioinformatician", 2)
    assert "second round" in refused(tmp_path, "cryonuseg", annotator="biologist-2")
    assert "bioinformatician" in refused(tmp_path, "cryonuseg", annotator="me")


def test_cryonuseg_without_an_annotation(tmp_path):
    cryonuseg(tmp_path)
    next(tmp_path.rglob("Human_Skin_01.zip")).unlink()
    said = refused(tmp_path, "cryonuseg", annotator="bioinformatician")
    assert "Human_Skin_01.tif" in said
    assert "Larynx" not in said


def test_cryonuseg_early_with_something_missing(tmp_path, caplog):
    for name in ("TCGA-AA-0001", "TCGA-AA-0002"):
        image(tmp_path / name / f"{name}-01A.x.tif")
        rois(tmp_path / name / "RoiSet.zip", a=BOX)
    assert len(list(open_folder(tmp_path, "cryonuseg"))) == 2
    (tmp_path / "TCGA-AA-0001" / "RoiSet.zip").unlink()
    assert "TCGA-AA-0001/TCGA-AA-0001-01A.x.tif" in refused(tmp_path, "cryonuseg")
    shutil.rmtree(tmp_path / "TCGA-AA-0001")
    image(tmp_path / "TCGA-AA-0002" / "another.tif")
    assert "2 images" in refused(tmp_path, "cryonuseg")
    (tmp_path / "TCGA-AA-0002" / "another.tif").unlink()
    (tmp_path / "TCGA-AA-0003").mkdir()
    assert "no image TCGA-AA-0003/*.tif" in refused(tmp_path, "cryonuseg")


# --- CoNSeP -------------------------------------------------------------------------------------


def test_consep_pngs(shared_data):
    folder = open_folder(shared_data / "CoNSeP", "consep")
    assert len(folder) == 27
    item = next(iter(folder))
    path = shared_data / "CoNSeP" / "Train" / "Labels_instance_png" / f"{item.name}.png"
    np.testing.assert_array_equal(item.labels, np.asarray(Image.open(path)))
    assert item.mpp == 0.25
    assert len(open_folder(shared_data / "CoNSeP" / "Train", "consep")) == 27


def test_consep_mats(tmp_path):
    wanted = {}
    for part, name in (("Train", "train_1"), ("Test", "test_1")):
        image(tmp_path / part / "Images" / f"{name}.png")
        wanted[name] = np.random.default_rng(1).integers(0, 999, (SIDE, SIDE))
        (tmp_path / part / "Labels").mkdir()
        values = {"inst_map": wanted[name].astype(float), "inst_type": np.ones((3, 1))}
        savemat(tmp_path / part / "Labels" / f"{name}.mat", values)
        label_map(tmp_path / part / "Labels_instance_png" / f"{name}.png")
    items = list(open_folder(tmp_path, "consep"))
    assert [i.name for i in items] == ["test_1", "train_1"]
    for item in items:
        assert item.labels.dtype == np.int32
        np.testing.assert_array_equal(item.labels, wanted[item.name])
    (tmp_path / "Train" / "Labels" / "train_1.mat").unlink()
    assert len(open_folder(tmp_path, "consep")) == 2
    (tmp_path / "Train" / "Labels_instance_png" / "train_1.png").unlink()
    assert "Train/Images/train_1.png" in refused(tmp_path, "consep")
    shutil.rmtree(tmp_path / "Train")
    assert len(open_folder(tmp_path, "consep")) == 1
    (tmp_path / "Train" / "Labels").mkdir(parents=True)
    assert "no image Train/Images/*.png" in refused(tmp_path, "consep")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"type_map": np.ones((3, 3))}, "inst_map"),
        ({"inst_map": np.full((3, 3), 0.5)}, "whole"),
        ({"inst_map": np.full((3, 3), np.nan)}, "whole"),
        ({"inst_map": np.full((3, 3), -1.0)}, "whole"),
        ({"inst_map": np.ones((3, 3, 2))}, "channel"),
        ({"inst_map": "words"}, "channel"),
        (None, "MATLAB"),
    ],
)
def test_mats_that_are_none(values, says, tmp_path):
    path = tmp_path / "a.mat"
    if values is None:
        path.write_bytes(b"no MATLAB file at all" * 9)
    else:
        savemat(path, values)
    with pytest.raises(InputError, match=says) as caught:
        labels_from_mat(path, (3, 3))
    assert "a.mat" in str(caught.value)


# --- DSB2018 ------------------------------------------------------------------------------------


def test_dsb2018(shared_data):
    root = shared_data / "DSB2018_stained"
    folder = open_folder(root, "dsb2018")
    assert len(folder) == 119
    test = open_folder(root / "stage1_test", "dsb2018")
    assert len(test) == 12
    for item in test:
        masks = sorted((root / "stage1_test" / item.name / "masks").glob("*.png"))
        assert item.labels.max() == len(masks)
        assert (item.mpp, item.licence, item.patient) == (None, "CC0", item.name)
        # The maps beside them were made by somebody else from the same masks.
        other = np.asarray(Image.open(root / "labels" / "stage1_test" / f"{item.name}.png"))
        assert foreground_iou(item.labels, other) == 1


def dsb(root, names=("a", "b")):
    for i, name in enumerate(names):
        image(root / name / "images" / f"{name}.png")
        (root / name / "masks").mkdir(exist_ok=True)
        for k in range(3):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[8 * k : 8 * k + 6, i : i + 5] = 255
            Image.fromarray(mask).save(root / name / "masks" / f"{name}_{k}.png")


def test_dsb2018_by_hand(tmp_path, caplog):
    dsb(tmp_path)
    a, _ = open_folder(tmp_path, "dsb2018")
    assert [item.mpp for item in open_folder(tmp_path, "dsb2018", mpp=0.5)] == [0.5, 0.5]
    assert a.labels[0, 0] == 1
    assert a.labels[16, 4] == 3
    assert np.count_nonzero(a.labels) == 3 * 30
    (tmp_path / "a" / "masks" / "._a_0.png").write_bytes(b"of macOS")
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "a" / "masks" / "x.png")
    with caplog.at_level(logging.WARNING):
        a, _ = open_folder(tmp_path, "dsb2018")
    assert "a: 1 masks are empty" in caplog.text


def test_dsb2018_with_something_missing(tmp_path):
    dsb(tmp_path)
    (tmp_path / "b" / "images" / "b.png").unlink()
    assert "no image" in refused(tmp_path, "dsb2018")
    assert "/b/images/b.png" in refused(tmp_path, "dsb2018")
    (tmp_path / "b" / "images").rmdir()
    assert "/b/images/b.png" in refused(tmp_path, "dsb2018")
    shutil.rmtree(tmp_path / "b")
    shutil.rmtree(tmp_path / "a" / "masks")
    assert "a/images/a.png" in refused(tmp_path, "dsb2018")
    dsb(tmp_path)
    image(tmp_path / "b" / "masks" / "b_1.png", side=9)
    assert "b_1.png" in refused(tmp_path, "dsb2018")
    (tmp_path / "b" / "masks" / "b_1.png").write_bytes(b"damaged")
    assert "b_1.png" in refused(tmp_path, "dsb2018")


# --- options, and what is there too much -------------------------------------------------------


def test_the_monuseg_convention_has_a_switch(tmp_path):
    image(tmp_path / "TCGA-1.tif")
    (tmp_path / "TCGA-1.xml").write_text(aperio(square(3, 5, 6)))
    (plain,) = open_folder(tmp_path, "monuseg")
    (raw,) = open_folder(tmp_path, "monuseg", offset=0)
    np.testing.assert_array_equal(raw.labels[1:, 1:], plain.labels[:-1, :-1])
    label_map(tmp_path / "labels" / "TCGA-1.png")
    (mapped,) = open_folder(tmp_path, "monuseg")
    (from_xml,) = open_folder(tmp_path, "monuseg", source="xml")
    assert not np.array_equal(mapped.labels, from_xml.labels)
    np.testing.assert_array_equal(from_xml.labels, plain.labels)
    assert "sauce" in refused(tmp_path, "monuseg", source="sauce")
    (tmp_path / "TCGA-1.tif.aux.xml").write_text("of GDAL")
    (tmp_path / "TCGA-2.xml").write_text(aperio())
    assert len(open_folder(tmp_path, "monuseg", source="labels")) == 1
    assert "no image TCGA-2.tif;" in refused(tmp_path, "monuseg")
    (tmp_path / "TCGA-2.xml").unlink()
    shutil.rmtree(tmp_path / "labels")
    assert "TCGA-1.tif" in refused(tmp_path, "monuseg", source="labels")
    for place in ("Tissue Images", "Annotations"):
        (tmp_path / place).mkdir()
    (tmp_path / "TCGA-1.tif").rename(tmp_path / "Tissue Images" / "TCGA-1.tif")
    (tmp_path / "TCGA-1.xml").rename(tmp_path / "Annotations" / "TCGA-1.xml")
    (tmp_path / "Annotations" / "TCGA-3.xml").write_text(aperio())
    assert "no image Tissue Images/TCGA-3.tif;" in refused(tmp_path, "monuseg")


@pytest.mark.parametrize(
    ("layout", "options", "says"),
    [
        ("consep", {"offset": 0}, "no option 'offset'"),
        ("monuseg", {"offset": "left"}, "'left'"),
        ("monuseg", {"offset": float("nan")}, "nan"),
        ("cryonuseg", {"annotator": 2.0}, "a text"),
        ("nuinsseg", {"annotator": "biologist"}, "it knows offset, mpp"),
        ("nuinsseg", {"mpp": 0}, "is 0; expected um a pixel"),
        ("tnbc", {"mpp": -0.25}, "is -0.25; expected um a pixel"),
        ("consep", {"mpp": "40x"}, "'40x'; expected a number"),
        ("pairs", {"mpp": True}, "True; expected a number"),
        ("dsb2018", {"mpp": float("inf")}, "inf; expected a number"),
    ],
)
def test_options_that_a_layout_cannot_use(layout, options, says, tmp_path):
    assert says in refused(tmp_path, layout, **options)


MADE = {
    "monuseg": lambda root: (image(root / "a.tif"), label_map(root / "labels" / "a.png")),
    "tnbc": lambda root: (image(root / "Slide_01" / "a.png"), label_map(root / "GT_01" / "a.png")),
    "nuinsseg": lambda root: nuinsseg(root),
    "cryonuseg": lambda root: cryonuseg(root),
    "consep": lambda root: (image(root / "Images" / "a.png"), label_map(root / "Labels" / "a.png")),
    "dsb2018": lambda root: dsb(root),
    "pairs": lambda root: (image(root / "images" / "a.png"), label_map(root / "labels" / "a.png")),
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_pixel_size_given_goes_before_all_others(layout, tmp_path):
    MADE[layout](tmp_path)
    folder = open_folder(tmp_path, layout, mpp=0.4)
    assert {item.mpp for item in folder} == {0.4}
    plain = open_folder(tmp_path, layout)
    assert 0.4 not in {item.mpp for item in plain}
    first, same = next(iter(folder)), next(iter(plain))
    np.testing.assert_array_equal(first.labels, same.labels)
    assert (first.name, first.patient, first.licence) == (same.name, same.patient, same.licence)
    # Of some patients alone, too.
    (one,) = folder.of_patients([first.patient])
    assert one.mpp == 0.4


@pytest.mark.parametrize("layout", ["pairs", "monuseg", "tnbc", "nuinsseg", "consep"])
def test_labels_without_an_image_are_said(layout, tmp_path, caplog):
    places = {
        "pairs": ("images/a.png", "labels/a.png", "labels/b.png"),
        "monuseg": ("Tissue Images/a.tif", "labels/a.png", "labels/b.png"),
        "tnbc": ("Slide_01/01_1.png", "GT_01/01_1.png", "GT_01/b.png"),
        "nuinsseg": ("o/tissue images/a.png", "o/label masks modify/a.tif", "o/Imagej_zips/b.zip"),
        "consep": ("Images/a.png", "Labels/a.png", "Labels_instance_png/b.png"),
    }[layout]
    image(tmp_path / places[0])
    label_map(tmp_path / places[1])
    (tmp_path / places[2]).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / places[2]).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert len(open_folder(tmp_path, layout)) == 1
    assert "no image for" in caplog.text
    assert (tmp_path / places[2]).stem in caplog.text.split("labels of")[1]


def test_evaluate_knows_all_layouts_and_their_options(quick, tmp_path, capsys):
    assert cli.LAYOUTS.split("|") == list(LAYOUTS)
    cryonuseg(tmp_path)
    command = ["evaluate", str(tmp_path), "--layout", "cryonuseg"]
    result = tmp_path / "out" / "r.json"
    options = ["--options", "annotator=bioinformatician, offset=-0.5", "--json", str(result)]
    assert main([*command, *options]) == 0
    text = result.read_text()
    assert text.count('"annotator": "bioinformatician"') == 2
    capsys.readouterr()
    for wrong, says in (("annotator", "KEY=VALUE"), ("side=1", "'side'"), ("=2", "KEY=VALUE")):
        assert main([*command, "--options", wrong]) == 2
        assert says in capsys.readouterr().err
