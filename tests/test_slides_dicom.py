"""Slides in DICOM, a file a level, and the hash of all files of a slide."""

import io

import numpy as np
import pytest
from PIL import Image

from helpers import smooth
from napari_nucprune.slides.identity import input_sha256
from napari_nucprune.slides.reader import get_reader, open_slide, read_slide
from slides_helpers import refused


def write_dicom(path, rgb, mpp, series, number):
    """A level of a slide in DICOM: JPEG tiles, row by row."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

    side, (height, width) = 256, rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % side), (0, -width % side), (0, 0)), constant_values=255)
    frames = []
    for y in range(0, height, side):
        for x in range(0, width, side):
            file = io.BytesIO()
            tile = Image.fromarray(padded[y : y + side, x : x + side])
            tile.save(file, "JPEG", quality=95, subsampling=0)
            frames.append(file.getvalue())
    head = FileMetaDataset()
    head.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    head.MediaStorageSOPInstanceUID = generate_uid()
    head.TransferSyntaxUID = JPEGBaseline8Bit
    measures, shared, optics, data = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [um / 1000 for um in mpp]
    shared.PixelMeasuresSequence = [measures]
    optics.OpticalPathIdentifier, optics.ObjectiveLensPower = "1", 20
    data.file_meta = head
    about = {
        "SOPClassUID": head.MediaStorageSOPClassUID,
        "SOPInstanceUID": head.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": series, "StudyInstanceUID": series, "FrameOfReferenceUID": series,
        "Modality": "SM", "InstanceNumber": number,
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        if number == 1
        else ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"],
        "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422",
        "PlanarConfiguration": 0, "Rows": side, "Columns": side, "BitsAllocated": 8,
        "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "NumberOfFrames": len(frames),
        "TotalPixelMatrixColumns": width, "TotalPixelMatrixRows": height,
        "TotalPixelMatrixFocalPlanes": 1, "DimensionOrganizationType": "TILED_FULL",
        "NumberOfOpticalPaths": 1, "SharedFunctionalGroupsSequence": [shared],
        "OpticalPathSequence": [optics],
    }  # fmt: skip
    for name, value in about.items():
        setattr(data, name, value)
    data.PixelData = encapsulate(frames)
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)


def test_dicom(tmp_path):
    """A file a level; any of them opens the slide."""
    pytest.importorskip("pydicom")
    from pydicom.uid import generate_uid

    # Low frequencies, which JPEG keeps.
    full, series = smooth(5, 700, 1000), generate_uid()
    half = full.reshape(350, 2, 500, 2, 3).mean((1, 3)).astype(np.uint8)
    write_dicom(tmp_path / "a.dcm", full, (0.5, 0.25), series, 1)
    write_dicom(tmp_path / "b.dcm", half, (1.0, 0.5), series, 2)
    for name in ("a.dcm", "b.dcm"):
        assert get_reader(str(tmp_path / name)) is read_slide
        slide = open_slide(tmp_path / name)
        assert slide.vendor == "dicom"
        assert slide.shapes == ((700, 1000), (350, 500))
        assert slide.mpp == pytest.approx((0.5, 0.25))
        assert slide.objective == 20
        for level, wanted in enumerate((full, half)):
            got = slide.read(level, 37, 41, 300, 400).astype(int)
            assert np.abs(got - wanted[37:337, 41:441]).max() < 12
    ((data, attributes, _),) = read_slide(str(tmp_path / "a.dcm"))
    assert [level.shape for level in data] == [(700, 1000, 3), (350, 500, 3)]
    assert attributes["scale"] == pytest.approx((0.5, 0.25))
    before = input_sha256(tmp_path / "a.dcm")
    write_dicom(tmp_path / "b.dcm", 255 - half, (1.0, 0.5), series, 2)
    assert input_sha256(tmp_path / "a.dcm") != before


def test_a_dropped_dicom_file_is_ours_only_where_it_is_a_slide(tmp_path):
    path = tmp_path / "heart.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(900))
    assert get_reader(str(path)) is None
    refused(path)


def test_the_hash_is_of_all_files_of_a_slide(tmp_path):
    def dicom(name, series, pixels):
        uid = b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little") + series
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + uid + pixels)

    dicom("level0.dcm", b"1.2.3", b"a")
    dicom("level1.dcm", b"1.2.3", b"b")
    dicom("other.dcm", b"1.2.4", b"c")
    before = input_sha256(tmp_path / "level0.dcm")
    dicom("other.dcm", b"1.2.4", b"changed")
    assert input_sha256(tmp_path / "level0.dcm") == before
    dicom("level1.dcm", b"1.2.3", b"changed")
    assert input_sha256(tmp_path / "level0.dcm") != before

    for name in ("s.vms", "s(0,0).jpg", "t.jpg"):
        (tmp_path / name).write_bytes(b"1")
    before = input_sha256(tmp_path / "s.vms")
    (tmp_path / "t.jpg").write_bytes(b"2")
    assert input_sha256(tmp_path / "s.vms") == before
    (tmp_path / "s(0,0).jpg").write_bytes(b"2")
    assert input_sha256(tmp_path / "s.vms") != before


def test_reading_all_of_a_slide_tells_how_far_it_is_and_can_be_stopped(tmp_path, monkeypatch):
    import hashlib

    from napari_nucprune.errors import Cancelled
    from napari_nucprune.slides import identity

    path = tmp_path / "a.svs"
    path.write_bytes(bytes(range(256)) * 20_000)
    monkeypatch.setattr(identity, "_BLOCK", 1 << 19)
    monkeypatch.setattr(identity, "_SAID", 1 << 20)
    told = []
    found = input_sha256(path, lambda text, done, total: told.append((done, total)))
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    assert told == [(i, 4) for i in range(1, 5)]
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        input_sha256(path, should_stop=lambda: next(asked))
