"""Archives read in place: the cube is that of the unpacked files, byte for byte; what is damaged or hostile is named."""

from __future__ import annotations

import errno
import gzip
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from making import MODALITIES, Built, Made

from cube import build
from cube.cli.main import main
from cube.errors import RequestError, StorageError
from cube.format.target import target_of
from cube.source import files as files_module
from cube.source import gzip_index
from cube.source.files import open_source
from cube.source.rejected import Rejected
from cube.store.local import LocalStore
from cube.store.protocol import Entry
from cube.verify.verification import verify_cube

SEED = 1970


def objects_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def paths_of(made: Made) -> list[str]:
    return sorted(str(path.relative_to(made.folder)) for path in made.files.values())


def numeric(path: str) -> tuple[str, int]:
    stem, _, number = path.removesuffix(".tif").rpartition("_p")
    return stem, int(number)


ORDERS: dict[str, Callable[[list[str]], list[str]]] = {
    "numeric": lambda paths: sorted(paths, key=numeric),
    "lexical": sorted,
    "random": lambda paths: random.Random(SEED).sample(paths, len(paths)),
}


def pack(made: Made, to: Path, paths: Iterable[str], mode: str = "w:gz") -> None:
    """Pack files as ``tar`` does; a zip where the name says so."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.suffix == ".zip":
        with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED if mode == "w:gz" else zipfile.ZIP_STORED) as archive:
            for path in paths:
                archive.write(made.folder / path, path)
        return
    with tarfile.open(to, mode) as archive:
        for path in paths:
            archive.add(made.folder / path, path)


def official(made: Made, folder: Path, order: str) -> Path:
    """Pack as the data set is published: an archive for each season and modality."""
    for season in ("1158_spring", "1868_summer"):
        for name in MODALITIES:
            chosen = [path for path in paths_of(made) if season in path and f"/{name}_" in path]
            pack(made, folder / f"ROIs{season}_{name}.tar.gz", ORDERS[order](chosen))
    return folder


def mixed(made: Made, folder: Path) -> Path:
    """A folder in which everything is: unpacked files, a tar, a tar.gz, zips of both kinds, in capitals, too."""
    parts: list[list[str]] = [paths_of(made)[place::5] for place in range(5)]
    for path in parts[0]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.folder / path, folder / path)
    pack(made, folder / "a.tar", parts[1], "w")
    pack(made, folder / "b.TGZ", parts[2])
    pack(made, folder / "c.zip", parts[3])
    pack(made, folder / "d.zip", parts[4], "w")
    return folder


FORMS: dict[str, Callable[[Made, Path], Path]] = {
    **{f"official, {order}": lambda made, folder, order=order: official(made, folder, order) for order in ORDERS},
    "mixed": mixed,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_cube_is_that_of_the_folder(made: Made, tiny_cube: Built, tiny_recipe: Path, tmp_path: Path, form: str) -> None:
    source = FORMS[form](made, tmp_path / "source")
    before = objects_of(source)
    built = build(tiny_recipe, source, tmp_path / "tiny.zarr")
    assert objects_of(tmp_path / "tiny.zarr") == objects_of(Path(tiny_cube.target.url))
    assert objects_of(source) == before
    report = verify_cube(target_of(built.report.url), source=str(source))
    assert report.passed, report.findings
    assert next(check.seen for check in report.checks if check.name == "source").startswith("75 files")


@pytest.mark.parametrize("name", ["one.tar.gz", "one.tar", "one.zip"])
def test_one_archive_is_a_source(made: Made, tiny_cube: Built, tiny_recipe: Path, tmp_path: Path, name: str) -> None:
    pack(made, tmp_path / name, paths_of(made), "w" if name.endswith("tar") else "w:gz")
    (tmp_path / "other.txt").write_text("none of the source")
    build(tiny_recipe, tmp_path / name, tmp_path / "tiny.zarr")
    assert objects_of(tmp_path / "tiny.zarr") == objects_of(Path(tiny_cube.target.url))


def test_an_archive_is_inflated_once(made: Made, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = official(made, tmp_path / "source", "lexical")
    inflated: list[str] = []
    plain = gzip_index.make_index

    def counted(store: LocalStore, archive: Entry, indexes: LocalStore) -> object:
        inflated.append(archive.key)
        return plain(store, archive, indexes)

    monkeypatch.setattr(files_module, "make_index", counted)
    built = build(tiny_recipe, source, tmp_path / "tiny.zarr")
    assert len(inflated) == len(set(inflated)) == 6
    verify_cube(target_of(built.report.url), source=str(source))
    build(tiny_recipe, source, tmp_path / "tiny.zarr")
    assert len(inflated) == 6
    words = ["build", "--source", str(source), "--to", str(tmp_path / "other.zarr"), "--workers", "0"]
    assert "wrong size" in CliRunner().invoke(main, words).output  # recognised as the data set of larger patches, once inflated
    assert len(inflated) == 12
    inflated.clear()
    (damaged, *_) = (tmp_path / "tiny.build" / "archives").iterdir()
    damaged.write_bytes(damaged.read_bytes()[:-50])
    assert verify_cube(target_of(built.report.url), source=str(source)).passed
    assert len(inflated) == 1


def test_beside_the_cube_of_somebody_else_nothing_is_written(
    made: Made, tiny_cube: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = official(made, tmp_path / "source", "lexical")
    plain = LocalStore.writing

    def refused(store: LocalStore, key: str) -> object:
        if store.root.endswith("tiny.build/archives"):
            raise PermissionError(errno.EACCES, "Permission denied", key)
        return plain(store, key)

    monkeypatch.setattr(LocalStore, "writing", refused)
    assert verify_cube(tiny_cube.target, source=str(source)).passed


def test_what_lies_unpacked_is_used_unless_it_is_shorter(made: Made, tmp_path: Path) -> None:
    paths = paths_of(made)
    pack(made, tmp_path / "all.tar", paths, "w")
    whole, cut, *_ = paths
    for path, length in ((whole, None), (cut, 100)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((made.folder / path).read_bytes()[:length])
    source = open_source(str(tmp_path))
    entries = [entry for entry in source.listed() if isinstance(entry, Entry)]
    assert sorted(entry.key for entry in entries) == paths
    assert whole not in source.members
    assert cut in source.members
    read = dict(zip([entry.key for entry in entries], source.read_listed(entries), strict=True))
    assert read == {path: (made.folder / path).read_bytes() for path in paths}


def test_the_same_file_in_two_archives_must_be_the_same(made: Made, tmp_path: Path) -> None:
    one, other, *rest = paths_of(made)
    pack(made, tmp_path / "a.tar.gz", [one, other])
    pack(made, tmp_path / "b.zip", [one, *rest])
    changed = bytearray((made.folder / other).read_bytes())
    changed[-1] ^= 1
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as archive:
        archive.writestr(other, bytes(changed))
    listed = list(open_source(str(tmp_path)).listed())
    assert sorted(entry.key for entry in listed if isinstance(entry, Entry)) == sorted([one, *rest])
    ((path, reason, detail),) = ((item.path, item.reason, item.detail) for item in listed if isinstance(item, Rejected))
    assert (path, reason) == (other, "duplicate")
    assert "a.tar.gz" in detail
    assert "b.zip" in detail


# Damage


def rejections(source: Path) -> list[Rejected]:
    listed = open_source(str(source)).listed()
    return [item for item in listed if isinstance(item, Rejected)]


@pytest.mark.parametrize("name", ["s1.tar", "s1.tar.gz"])
def test_of_a_cut_off_archive_the_rest_is_built(made: Made, tiny_recipe: Path, tmp_path: Path, name: str) -> None:
    paths = sorted((path for path in paths_of(made)), key=numeric)
    pack(made, tmp_path / "source" / name, paths, "w" if name.endswith("tar") else "w:gz")
    archive = tmp_path / "source" / name
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size * 2 // 3])
    built = build(tiny_recipe, tmp_path / "source", tmp_path / "tiny.zarr", incomplete="keep")
    assert built.report.passed
    assert built.plan.patches > 0
    said = [item for item in built.plan.inventory.rejected if item.reason == "damaged archive"]
    assert [item.path for item in said] == [name]
    assert "Download the archive again" in said[0].detail or "download the archive again" in said[0].detail


def test_a_corrupt_file_of_a_zip_is_one_rejection(made: Made, tiny_recipe: Path, tmp_path: Path) -> None:
    archive = tmp_path / "source" / "all.zip"
    pack(made, archive, paths_of(made))
    with zipfile.ZipFile(archive) as opened:
        (bad, *_) = (item for item in opened.infolist() if "/s2_" in item.filename)
    data = bytearray(archive.read_bytes())
    data[bad.header_offset + 30 + len(bad.filename) + bad.compress_size // 2] ^= 0xFF
    archive.write_bytes(data)
    built = build(tiny_recipe, tmp_path / "source", tmp_path / "tiny.zarr", incomplete="keep")
    assert built.report.passed
    ((path, reason, detail),) = built.rejected
    assert (path, reason) == (bad.filename, "unreadable")
    assert "all.zip" in detail


def test_a_flipped_bit_in_a_gzip_is_noticed(made: Made, tmp_path: Path) -> None:
    archive = tmp_path / "all.tar.gz"
    pack(made, archive, paths_of(made))
    whole, rng = archive.read_bytes(), random.Random(SEED)
    for _ in range(20):
        data = bytearray(whole)
        data[rng.randrange(20, len(data) - 8)] ^= 1 << rng.randrange(8)
        archive.write_bytes(data)
        assert [(item.path, item.reason) for item in rejections(tmp_path)] == [("all.tar.gz", "damaged archive")]


def test_a_damaged_header_does_not_end_a_tar(made: Made, tmp_path: Path) -> None:
    archive = tmp_path / "all.tar"
    pack(made, archive, paths_of(made), "w")
    with tarfile.open(archive) as opened:
        third = opened.getmembers()[2]
    data = bytearray(archive.read_bytes())
    data[third.offset + 150] ^= 0xFF
    archive.write_bytes(data)
    (said,) = rejections(tmp_path)
    assert said.reason == "damaged archive"
    assert "after 2 files" in said.detail


def test_an_archive_that_is_written_anew_stops_the_build(made: Made, tmp_path: Path) -> None:
    pack(made, tmp_path / "all.tar", paths_of(made), "w")
    source = open_source(str(tmp_path))
    entries = [entry for entry in source.listed() if isinstance(entry, Entry)]
    os.utime(tmp_path / "all.tar", ns=(1, 1))
    with pytest.raises(StorageError, match=r"all\.tar: written anew since it was listed: run again"):
        list(source.part([entries[0].key]).read_listed(entries[:1]))


# Hostile archives


def test_names_that_lead_out_links_and_devices_are_refused(tmp_path: Path) -> None:
    names = ("../out.tif", "/abs.tif", "a/../../out.tif", "C:/x.tif", "..\\out.tif")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            item = tarfile.TarInfo(f"kind{kind.decode()}.tif")
            item.type, item.linkname = kind, "/etc/passwd"
            tar.addfile(item)
        tar.addfile(tarfile.TarInfo("good.tif"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
        link = zipfile.ZipInfo("link.tif")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    listed = list(open_source(str(tmp_path)).listed())
    assert [entry.key for entry in listed if isinstance(entry, Entry)] == ["good.tif"]
    refused = [item for item in listed if isinstance(item, Rejected)]
    assert {item.reason for item in refused} == {"unsafe member"}
    assert len(refused) == 2 * len(names) + 4 + 1


def claims(size: int) -> bytes:
    """Return a tar whose first header says that a name of so many bytes follows."""
    item = tarfile.TarInfo("././@LongLink")
    item.type, item.size = tarfile.GNUTYPE_LONGNAME, size
    return item.tobuf(tarfile.GNU_FORMAT) + bytes(2**16)


@pytest.mark.parametrize("size", [2**21, 2**33, 2**62])
def test_a_claim_of_a_header_takes_no_memory(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.tar").write_bytes(claims(size))
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(claims(size)))
    assert {item.reason for item in rejections(tmp_path)} == {"damaged archive"}


def test_a_bomb_is_never_inflated_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.tif", bytes(2**24))
    data = (tmp_path / "bomb.zip").read_bytes()
    small = (2**24).to_bytes(4, "little")
    (tmp_path / "bomb.zip").write_bytes(data.replace(small, (100).to_bytes(4, "little")))  # what its directory claims
    source = open_source(str(tmp_path))
    (entry,) = (entry for entry in source.listed() if isinstance(entry, Entry))
    assert entry.size == 100
    (answer,) = source.read_listed([entry])
    assert isinstance(answer, OSError)
    assert "does not inflate to its 100 bytes" in str(answer)


@pytest.mark.parametrize("content", [b"", b"PK\5\6", b"\x1f\x8b", b"no archive at all" * 100, bytes(10240)])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_what_is_no_archive_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    listed = list(open_source(str(tmp_path)).listed())
    if content == bytes(10240) and name == "a.tar":
        assert listed == []  # an empty tar
    elif content:
        assert [(item.path, item.reason) for item in listed if isinstance(item, Rejected)] == [(name, "damaged archive")]
    else:
        assert [item.key for item in listed if isinstance(item, Entry)] == [name]  # an empty file, as any other


@pytest.mark.parametrize("name", ["a.tar.xz", "a.tar.bz2", "a.7z", "a.tar.zst"])
def test_archives_that_cannot_be_read_in_place_say_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    (said,) = rejections(tmp_path)
    assert "unpack it, or pack it anew" in said.detail


def test_encrypted_and_oddly_compressed_files_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.tif", b"1" * 1000)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("b.tif", b"1")
    data = bytearray(whole.getvalue())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    assert sorted(item.detail.split(":")[0] for item in rejections(tmp_path)) == [
        "is compressed by lzma, not deflated",
        "is encrypted",
    ]


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        open_source(str(tmp_path / "x.tar.gz"))
    (tmp_path / "x.tif").write_bytes(b"1")
    with pytest.raises(RequestError, match="no such folder, and no archive"):
        open_source(str(tmp_path / "x.tif"))
    with pytest.raises(RequestError, match=r"\.tar\.bz2 cannot be read in place, .* unpack it"):
        open_source(str(tmp_path / "x.tar.bz2"))


# Killed


@pytest.mark.judges
def test_killed_at_random_it_goes_on(made: Made, tiny_cube: Built, tiny_recipe: Path, tmp_path: Path) -> None:
    source, rng = official(made, tmp_path / "source", "random"), random.Random(SEED)
    words = [sys.executable, "-m", "cube", "build", str(tiny_recipe), "--source", str(source), "--workers", "0"]
    for run in range(20):
        folder = tmp_path / f"run{run}"
        for seconds in (rng.uniform(0.7, 2.5), rng.uniform(0.7, 2.5), None):
            process = subprocess.Popen([*words, "--to", str(folder / "tiny.zarr")], stderr=subprocess.DEVNULL)
            if seconds is None:
                assert process.wait() == 0
            else:
                time.sleep(seconds)
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert objects_of(folder / "tiny.zarr") == objects_of(Path(tiny_cube.target.url))
