"""``catalog/example`` is the catalog that ``cube demo`` makes.

Make it again with: ``cube demo && rm -r catalog/example && cp -r cube-demo/demo.stac catalog/example``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from cube.catalog.page import datasheet

EXAMPLE = Path(__file__).parents[2] / "catalog/example"
VARYING = {
    "file:size": "zlib and Blosc of another version compress otherwise",
    "file:checksum": "the same; and the root document names versions of software",
    "patchcube:stored_bytes": "the same",
    "patchcube:digest": "the root document names versions of software",
    "digest": "the same, of each version",
}
"""Fields whose value differs between machines, and why; their presence is compared all the same."""


@pytest.fixture
def made(demo: Path) -> Path:
    return demo / "demo.stac"


def test_the_example_has_the_files_that_the_demo_makes(made: Path) -> None:
    assert files(made) == files(EXAMPLE)


def test_documents_are_equal_to_the_byte_but_for_the_varying_fields(made: Path) -> None:
    documents = [path for path in files(made) if path.endswith(".json")]
    assert len(documents) == 7
    for path in documents:
        assert text_of(made / path) == text_of(EXAMPLE / path)


def test_pictures_show_the_same(made: Path) -> None:
    pictures = [path for path in files(made) if path.endswith(".png")]
    assert len(pictures) == 15
    for path in pictures:
        with Image.open(made / path) as one, Image.open(EXAMPLE / path) as other:
            assert (one.mode, one.size, one.info) == (other.mode, other.size, other.info)
            difference = np.abs(np.asarray(one, int) - np.asarray(other, int))
            assert difference.max() <= (0 if one.mode == "P" else 1)  # a mean of floats may round the other way


def test_the_tables_of_patches_are_equal(made: Path) -> None:
    one, other = (parquet.read_table(folder / "items.parquet") for folder in (made, EXAMPLE))
    assert one.schema.equals(other.schema, check_metadata=True)
    assert one.num_rows == other.num_rows == 118
    for (name, values), expected in zip(columns(one), columns(other), strict=True):
        if pyarrow.types.is_floating(values.type):  # PROJ of another version may differ in the last bits
            np.testing.assert_allclose(values.to_numpy(), expected[1].to_numpy(), rtol=0, atol=1e-9, err_msg=name)
        else:
            assert values.equals(expected[1]), name


def test_the_page_is_made_of_the_documents_beside_it() -> None:
    collection = json.loads((EXAMPLE / "collection.json").read_bytes())
    paths = [link["href"].removeprefix("./") for link in collection["links"] if link["rel"] == "item"]
    items = {path: json.loads((EXAMPLE / path).read_bytes()) for path in paths}
    assert datasheet(collection, items) == {"index.html": (EXAMPLE / "index.html").read_bytes()}


def columns(table: pyarrow.Table) -> list[tuple[str, pyarrow.ChunkedArray]]:
    """Return the columns of a table, those of structs one by one."""
    while any(pyarrow.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return list(zip(table.column_names, table.columns, strict=True))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def text_of(path: Path) -> str:
    document = json.loads(path.read_bytes())
    assert json.dumps(document, indent=2, ensure_ascii=False) == path.read_text(encoding="utf-8")
    return json.dumps(blanked(document), indent=2, ensure_ascii=False)


def blanked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: None if key in VARYING else blanked(below) for key, below in value.items()}
    return [blanked(below) for below in value] if isinstance(value, list) else value
