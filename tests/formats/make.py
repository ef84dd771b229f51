"""Make the small cube of the format that this package writes now, and pack it: ``tests/formats/FORMAT.zip``."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from making import Scene, make_patches  # noqa: E402

import cube  # noqa: E402
from cube.format.layout import FORMAT  # noqa: E402

SCENES = (Scene("spring", 1, rows=2, columns=3), Scene("summer", 2, rows=1, columns=2, epsg=32737))
RECIPE = """extends: sen12ms
name: tiny
patch: {size: 32}
layout: {tile: 16, shard: 4, labels: 16, header_bytes: 1024, path_bytes: 64}
"""


def pack(folder: Path, to: Path) -> None:
    """Pack a folder; the same files give the same bytes."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.writestr(zipfile.ZipInfo(str(path.relative_to(folder.parent))), path.read_bytes(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
        made = make_patches(folder / "files", SCENES)
        assert cube.build(folder / "tiny.yaml", made.folder, folder / "x.zarr").report.passed
        pack(folder / "x.zarr", HERE / f"{FORMAT}.zip")
