"""A slide's nuclei as files for others: GeoJSON for QuPath, CSV or Parquet."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import replacing
from .describe import COLUMNS
from .scratch import Found

_ROW = "%d,%.3f,%.3f,%.4f,%.4f,%.4f,%.6f,%.6g,%.3f,%.3f,%d\n"
_PROPERTIES = (
    ',"properties":{"objectType":"detection","isLocked":false,"measurements":'
    '{"id":%d,"area um^2":%.4f,"eccentricity":%.6f,"mean distance":%.6g,"seam":%d}}}'
)
#: Of `COLUMNS`, those of the properties.
_MEASURED = [COLUMNS.index(name) for name in ("id", "area_um2", "eccentricity", "mean_distance")]
TABLES = ("csv", "parquet")


def check_table(kind: str) -> None:
    """Refuse a kind of table that cannot be written here."""
    if kind not in TABLES:
        raise InputError(f"The table {kind!r} is not known; choose {' or '.join(TABLES)}.")
    if kind == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise InputError(
                "A Parquet table wants pyarrow; install it with: "
                "pip install 'napari-nucprune[parquet]', or choose csv."
            ) from error


def write_all(
    folder: Path, kind: str, zipped: bool, found: Iterable[tuple[int, Found | None]]
) -> NDArray[np.int64]:
    """Write the table and the outlines, core by core: memory does not grow with the slide.

    Parameters
    ----------
    folder
        Where the files go.
    kind, zipped
        One of `TABLES`, and whether the GeoJSON is gzipped.
    found
        For each core in order what its numbers start after, and its objects.

    Returns
    -------
    NDArray
        Ids of the objects at seams that may differ from one watershed, int64.

    Raises
    ------
    EnvironmentStopped
        Where they cannot be written.
    """
    seams = [np.zeros(0, np.int64)]
    with _geojson(folder, zipped) as shape, _table(folder, kind) as rows:
        for start, own in found:
            if own is None or not len(own.claims):
                continue
            table = own.table.copy()
            table[:, 0] += start
            rows(table)
            shape(table, own.shapes)
            seams.append(table[own.claims.seam, 0].astype(np.int64))
    return np.concatenate(seams)


@contextmanager
def _geojson(
    folder: Path, zipped: bool
) -> Iterator[Callable[[NDArray[np.float64], list[str]], None]]:
    """Open the FeatureCollection: a feature a line, closed at the end."""
    with replacing(folder / geojson_name(zipped)) as temporary, temporary.open("wb") as raw:
        # Without name and date, the same nuclei give the same bytes.
        file: IO[bytes] = (
            gzip.GzipFile("", "wb", 6, raw, mtime=0) if zipped else raw  # type: ignore[assignment]
        )
        before = '{"type":"FeatureCollection","features":[\n'

        def write(table: NDArray[np.float64], shapes: list[str]) -> None:
            nonlocal before
            measured = table[:, [*_MEASURED, -1]].tolist()
            lines = [
                f'{{"type":"Feature","geometry":{shape}{_PROPERTIES % tuple(row)}'
                for row, shape in zip(measured, shapes, strict=True)
            ]
            file.write((before + ",\n".join(lines)).encode())
            before = ",\n"

        yield write
        start = before if before.startswith("{") else ""
        file.write(f"{start}\n]}}\n".encode())
        if zipped:
            file.close()


def geojson_name(zipped: bool) -> str:
    """Return the outlines' file name."""
    return "nuclei.geojson.gz" if zipped else "nuclei.geojson"


@contextmanager
def _table(folder: Path, kind: str) -> Iterator[Callable[[NDArray[np.float64]], None]]:
    """Open the table; rows come core by core."""
    with replacing(folder / f"nuclei.{kind}") as temporary:
        if kind == "csv":
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(",".join(COLUMNS) + "\n")
                yield lambda rows: file.writelines(_ROW % tuple(row) for row in rows.tolist())
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"id": pa.int64(), "seam": pa.bool_()}
        schema = pa.schema([(name, types.get(name, pa.float64())) for name in COLUMNS])

        def write(rows: NDArray[np.float64]) -> None:
            columns: list[Any] = [
                pa.array(rows[:, i], pa.float64()).cast(schema.field(name).type)
                for i, name in enumerate(COLUMNS)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))

        with pq.ParquetWriter(temporary, schema) as writer:
            yield write
