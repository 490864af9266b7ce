import os

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from helpers import is_one_line, noise
from napari_nucprune.cli import main
from napari_nucprune.datasets.base import Annotated, read_labels
from napari_nucprune.datasets.monuseg import labels_from_xml
from napari_nucprune.datasets.registry import LAYOUTS, open_folder
from napari_nucprune.errors import InputError

FOUR = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def refused(*arguments, **options):
    with pytest.raises(InputError) as caught:
        for _ in open_folder(*arguments, **options):
            pass
    assert is_one_line(caught.value), str(caught.value)
    return str(caught.value)


def foreground_iou(a, b):
    return np.count_nonzero((a > 0) & (b > 0)) / np.count_nonzero((a > 0) | (b > 0))


# --- MoNuSeg ------------------------------------------------------------------------------------

# Of the 13 XML files only B0-5710 differs from its published map (IoU 0.90, and 0.97 at -0.5).
CASES = ["TCGA-21-5784-01Z-00-DX1", "TCGA-50-5931-01Z-00-DX1", "TCGA-NH-A8F7-01A-01-TS1"]


@pytest.fixture
def monuseg(shared_data):
    return shared_data / "MoNuSeg" / "MoNuSegTrainingData"


def link(folder, *files):
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        os.symlink(file, folder / file.name)


@pytest.mark.parametrize("name", CASES)
def test_monuseg_xml_gives_the_published_maps(name, monuseg, tmp_path):
    link(tmp_path / "Tissue Images", monuseg / "Tissue Images" / f"{name}.tif")
    link(tmp_path / "Annotations", monuseg / "Annotations" / f"{name}.xml")
    folder = open_folder(tmp_path, "monuseg")
    assert len(folder) == 1
    (item,) = folder
    truth = np.asarray(Image.open(monuseg / "labels" / f"{name}.png")).astype(int)
    assert item.labels.shape == truth.shape == item.rgb.shape[:2] == (1000, 1000)
    assert (item.name, item.patient, item.mpp) == (name, name[:12], 0.25)
    assert item.labels.dtype == np.int32
    found = foreground_iou(item.labels, truth)
    assert found >= 0.97
    # Vertices as they stand, or shifted the other way, are worse: the offset is right.
    xml = monuseg / "Annotations" / f"{name}.xml"
    for offset in (0.0, -2.0):
        other = foreground_iou(labels_from_xml(xml, truth.shape, offset), truth)
        assert other < found - 0.03
    # Nucleus by nucleus too: where polygons overlap, the published maps say who owns the pixels.
    count = len(np.unique(truth)) - 1
    assert item.labels.max() == count
    pairs, areas = np.unique(item.labels.astype(int) * 100_000 + truth, return_counts=True)
    found_area, true_area = np.bincount(item.labels.ravel()), np.bincount(truth.ravel())
    best = np.zeros(truth.max() + 1)
    for pair, both in zip(pairs.tolist(), areas.tolist(), strict=True):
        i, j = divmod(pair, 100_000)
        if i and j:
            best[j] = max(best[j], both / (found_area[i] + true_area[j] - both))
    ious = best[np.unique(truth)[1:]]
    assert ious.mean() > 0.97
    assert ious.min() > 0.7


def test_monuseg_labels_go_before_xml(monuseg, tmp_path):
    name = CASES[0]
    link(tmp_path, monuseg / "Tissue Images" / f"{name}.tif")
    assert name in refused(tmp_path, "monuseg")
    link(tmp_path, monuseg / "Annotations" / f"{name}.xml")
    (from_xml,) = open_folder(tmp_path, "monuseg")
    link(tmp_path / "labels", monuseg / "labels" / f"{name}.png")
    (from_map,) = open_folder(tmp_path, "monuseg")
    truth = np.asarray(Image.open(monuseg / "labels" / f"{name}.png"))
    np.testing.assert_array_equal(from_map.labels, truth)
    np.testing.assert_array_equal(from_map.rgb, from_xml.rgb)
    assert not np.array_equal(from_map.labels, from_xml.labels)


def test_all_of_monuseg_is_found(monuseg):
    folder = open_folder(monuseg, "monuseg")
    assert len(folder) == 30
    assert len({entry.patient for entry in folder.entries}) == 30
    assert [e.name for e in folder.entries] == sorted(p.stem for p in monuseg.glob("*Images/*.tif"))


def aperio(*polygons):
    regions = "".join(
        "<Region><Vertices>"
        + "".join(f'<Vertex X="{x}" Y="{y}"/>' for y, x in p)
        + "</Vertices></Region>"
        for p in polygons
    )
    return f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>"


def square(y, x, side):
    return [(y, x), (y, x + side), (y + side, x + side), (y + side, x)]


def test_polygons_by_hand(tmp_path):
    path = tmp_path / "a.xml"
    line = [(1, 1), (9, 9)]
    outside = square(500, 500, 9)
    path.write_text(aperio(square(3, 5, 6), line, square(6, 8, 6), outside, square(-4, 30, 8)))
    labels = labels_from_xml(path, (40, 50))
    assert labels.dtype == np.int32
    # Degenerate regions take no number, edges cut off.
    assert sorted(np.unique(labels)) == [0, 1, 2, 3]
    assert labels[3, 5] == 1
    assert labels[10, 12] == 2
    assert labels[7, 9] in (1, 2)
    both = np.argwhere((labels == 1) | (labels == 2))
    np.testing.assert_allclose(both.mean(axis=0), (7 - 0.5, 9 + 0.0), atol=0.6)
    assert labels[0, 33] == 3
    raw = labels_from_xml(path, (40, 50), offset=0)
    np.testing.assert_array_equal(raw[4:20, 4:20], labels[3:19, 3:19])


BAD_XML = {
    "empty": "",
    "cut": "<Annotations><Annotation>",
    "binary": "\x00\x01\x02",
    "words": "no xml at all",
    "unknown-encoding": '<?xml version="1.0" encoding="klingon"?><Annotations/>',
    "no-number": aperio([("a", 1), (2, 2), (3, 1)]),
    "other-xml": "<svg><path d='M 0 0'/></svg>",
}


@pytest.mark.parametrize("case", list(BAD_XML))
def test_what_is_no_aperio_xml(case, tmp_path):
    Image.fromarray(noise(0, 20, 20)).save(tmp_path / "TCGA-1.tif")
    (tmp_path / "TCGA-1.xml").write_text(BAD_XML[case])
    assert "TCGA-1.xml" in refused(tmp_path, "monuseg")


def test_an_image_without_nuclei(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(aperio())
    assert not labels_from_xml(path, (9, 9)).any()


# --- TNBC ---------------------------------------------------------------------------------------


def test_tnbc_counts_are_the_published_ones(shared_data):
    folder = open_folder(shared_data / "TNBC", "tnbc")
    assert len(folder) == 37
    names = [e.name for e in folder.entries]
    assert names == sorted(names)
    assert {e.patient for e in folder.entries} == {f"{i:02}" for i in range(1, 9)}
    assert all(e.patient == e.name[:2] for e in folder.entries)
    for item in folder:
        truth = np.asarray(Image.open(shared_data / "TNBC" / "labels" / f"{item.name}.png"))
        np.testing.assert_array_equal(item.labels > 0, truth > 0)
        assert item.labels.max() == len(np.unique(truth)) - 1
        # The same partition, whatever the numbers.
        pairs = np.unique(item.labels.astype(int) * 100_000 + truth)
        assert len(pairs) == item.labels.max() + 1
        assert item.rgb.shape == (512, 512, 3)
        assert item.mpp == 0.25


def tnbc_folder(tmp_path, patients=("01", "02")):
    truth = np.zeros((24, 30), np.uint8)
    truth[2:6, 2:6] = 255
    truth[6:9, 6:9] = 255  # touches the first at a corner only
    truth[15:20, 10:20] = 255
    for patient in patients:
        for kind, array in (("Slide", noise(int(patient), 24, 30)), ("GT", truth)):
            (tmp_path / f"{kind}_{patient}").mkdir()
            Image.fromarray(array).save(tmp_path / f"{kind}_{patient}" / f"{patient}_1.png")
    return truth


def test_tnbc_touching_corners_are_two_nuclei(tmp_path):
    truth = tnbc_folder(tmp_path)
    items = list(open_folder(tmp_path, "tnbc"))
    assert [i.patient for i in items] == ["01", "02"]
    for item in items:
        wanted, count = ndimage.label(truth, FOUR)
        assert count == 3
        np.testing.assert_array_equal(item.labels, wanted)


def test_some_patients_alone(tmp_path, capsys):
    tnbc_folder(tmp_path, ("01", "02", "03"))
    folder = open_folder(tmp_path, "tnbc")
    some = folder.of_patients(["03", "01"])
    assert [item.patient for item in some] == ["01", "03"]
    assert len(folder) == 3
    asked = ["evaluate", str(tmp_path), "--layout", "tnbc", "--patients"]
    assert main([*asked, "02, 09"]) == 2
    said = capsys.readouterr().err
    assert is_one_line(said.strip())
    assert "'09'" in said
    assert "01, 02, 03" in said
    assert main([*asked, "02"]) == 0
    assert capsys.readouterr().out.startswith("1 images of tnbc")


def test_tnbc_without_a_ground_truth(tmp_path):
    tnbc_folder(tmp_path)
    (tmp_path / "GT_02" / "02_1.png").unlink()
    assert "Slide_02/02_1.png" in refused(tmp_path, "tnbc")


def test_tnbc_without_a_patients_images(tmp_path):
    tnbc_folder(tmp_path)
    (tmp_path / "Slide_02" / "02_1.png").unlink()
    assert "no image Slide_02/*.png" in refused(tmp_path, "tnbc")
    (tmp_path / "Slide_02").rmdir()
    assert "no image Slide_02/02_1.png" in refused(tmp_path, "tnbc")


def test_tnbc_of_another_size(tmp_path):
    tnbc_folder(tmp_path)
    Image.fromarray(np.zeros((24, 31), np.uint8)).save(tmp_path / "GT_02" / "02_1.png")
    assert "02_1" in refused(tmp_path, "tnbc")


@pytest.mark.parametrize("damage", [b"", b"no image"])
@pytest.mark.parametrize("kind", ["Slide", "GT"])
def test_tnbc_with_a_damaged_file(kind, damage, tmp_path):
    tnbc_folder(tmp_path)
    (tmp_path / f"{kind}_02" / "02_1.png").write_bytes(damage)
    assert "02_1.png" in refused(tmp_path, "tnbc")


# --- pairs --------------------------------------------------------------------------------------


def write_pairs(tmp_path, names=("b", "a"), ending="png", images="images", labels="labels"):
    truths = {}
    (tmp_path / images).mkdir()
    (tmp_path / labels).mkdir()
    for i, name in enumerate(names):
        truths[name] = np.random.default_rng(i).integers(0, 3000, (20, 33)).astype(np.uint16)
        Image.fromarray(noise(i, 20, 33)).save(tmp_path / images / f"{name}.png")
        if ending == "tif":
            import tifffile

            tifffile.imwrite(tmp_path / labels / f"{name}.tif", truths[name].astype(np.int32))
        else:
            Image.fromarray(truths[name]).save(tmp_path / labels / f"{name}.png")
    return truths


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_pairs(ending, tmp_path):
    truths = write_pairs(tmp_path, ending=ending)
    items = list(open_folder(tmp_path, "pairs"))
    assert [i.name for i in items] == ["a", "b"]
    for item in items:
        np.testing.assert_array_equal(item.labels, truths[item.name])
        assert item.labels.dtype == np.int32
        assert (item.patient, item.mpp, item.licence) == (item.name, None, "not stated")


def test_pairs_options(tmp_path):
    write_pairs(tmp_path, images="x", labels="y")
    options = {"images": "x", "labels": "y", "mpp": 0.3, "licence": "CC0"}
    item = next(iter(open_folder(tmp_path, "pairs", **options)))
    assert (item.mpp, item.licence) == (0.3, "CC0")
    assert "'images/'" in refused(tmp_path, "pairs")
    assert "'image'" in refused(tmp_path, "pairs", image="x")


def test_pairs_without_labels_names_the_files(tmp_path):
    write_pairs(tmp_path, names=[f"n{i}" for i in range(9)])
    (tmp_path / "labels" / "n3.png").unlink()
    text = refused(tmp_path, "pairs")
    assert "n3.png" in text
    assert "n4.png" not in text
    for path in (tmp_path / "labels").iterdir():
        path.unlink()
    said, *lines = missing_in(tmp_path)
    assert is_one_line(said)
    assert "9 places" in said
    assert lines == [f"  no annotation for n{i}.png" for i in range(9)]
    for i in range(100, 200):
        (tmp_path / "images" / f"{i}.png").touch()
    lines = missing_in(tmp_path)[1:]
    assert len(lines) == 51
    assert lines[-1] == "  and 59 more"


def missing_in(folder):
    with pytest.raises(InputError) as caught:
        open_folder(folder, "pairs")
    return str(caught.value).splitlines()


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_two_files_of_one_name_are_refused(kind, tmp_path):
    """One of them would be left out without a word."""
    write_pairs(tmp_path)
    (tmp_path / kind / "._a.tif").touch()
    assert len(open_folder(tmp_path, "pairs")) == 2
    (tmp_path / kind / "a.tif").touch()
    assert "holds a.png and a.tif" in refused(tmp_path, "pairs")


@pytest.mark.parametrize(
    "array",
    [np.zeros((20, 33, 3), np.uint8), np.zeros((20, 33), np.float32), np.zeros((21, 33), np.uint8)],
    ids=["colour", "floats", "size"],
)
def test_pairs_with_what_is_no_label_map(array, tmp_path):
    import tifffile

    write_pairs(tmp_path, names=["a"])
    (tmp_path / "labels" / "a.png").unlink()
    tifffile.imwrite(tmp_path / "labels" / "a.tif", array)
    assert "a" in refused(tmp_path, "pairs")


def test_labels_of_more_than_16_bits(tmp_path):
    import tifffile

    path = tmp_path / "a.tif"
    wanted = np.array([[0, 70_000], [1, 2]], np.uint32)
    tifffile.imwrite(path, wanted)
    np.testing.assert_array_equal(read_labels(path), wanted)


# --- the door -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_folder_with_nothing_or_nowhere(layout, tmp_path):
    assert str(tmp_path) in refused(tmp_path, layout)
    assert "not a folder" in refused(tmp_path / "missing", layout)
    (tmp_path / "file").write_text("")
    assert "not a folder" in refused(tmp_path / "file", layout)


def test_an_unknown_layout(tmp_path):
    text = refused(tmp_path, "imagenet")
    assert all(name in text for name in LAYOUTS)


def test_image_and_labels_must_agree():
    with pytest.raises(InputError, match="same size"):
        Annotated("x", "p", noise(0, 4, 5), np.zeros((5, 4), np.int32), 0.25, "CC0")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float64])
def test_matlab_files_are_looked_at_before_scipy_reads_them(tmp_path, kind, compressed):
    """A type number that is none ended the process (a segmentation fault in scipy)."""
    import struct

    from scipy.io import savemat

    from napari_nucprune.datasets.consep import labels_from_mat

    labels = np.arange(30).reshape(5, 6)
    values = {"inst_map": labels.astype(kind), "inst_type": np.ones((5, 1)), "text": "a"}
    path = tmp_path / "a.mat"
    savemat(path, values, do_compression=compressed)
    np.testing.assert_array_equal(labels_from_mat(path, (5, 6)), labels)
    savemat(path, values)
    data = path.read_bytes()
    # The tag of the numbers follows the name.
    at = data.index(b"inst_map") + 8
    for number in (0, 8, 10, 200):
        path.write_bytes(data[:at] + struct.pack("<I", number) + data[at + 4 :])
        with pytest.raises(InputError) as caught:
            labels_from_mat(path, (5, 6))
        assert "a.mat" in str(caught.value)
