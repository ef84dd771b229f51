"""Pairing listed files into patches: names, labels, duplicates. Opens no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RejectedFile
from cube.recipes.patterns import compiled
from cube.recipes.recipe import Recipe
from cube.source.expectations import Expectation, expectations
from cube.source.inventory import Inventory
from cube.source.labels import NOTHING, labels_of, natural, places_in
from cube.source.names import Names
from cube.source.rejected import Rejected, rejection
from cube.source.stacks import SIGNS
from cube.store.protocol import Entry

_Key = tuple[int, int, int, tuple[str | int, ...]]
"""Season, scene and number of a patch, and its id in parts where several may have one number."""


def pair(
    recipe: Recipe,
    source: str,
    entries: Iterable[Entry | Rejected],
    equal: Callable[[list[Entry]], bool] = lambda entries: False,
    otherwise: Mapping[str, str] | None = None,
) -> Inventory:
    """Sort listed files into patches, rejected files and ignored ones. Equal sets of entries give equal inventories.

    ``equal`` tells whether files for one image are the same to the byte; then one of them is used and the others are counted.
    ``otherwise`` is what some files call a patch → its id.
    """
    sorting = _Sorting(recipe, equal, otherwise or {})
    for entry in entries:
        if isinstance(entry, Rejected):
            sorting.refuse(entry)
        else:
            sorting.add(entry)
    return sorting.inventory(source)


class _Sorting:
    def __init__(self, recipe: Recipe, equal: Callable[[list[Entry]], bool], otherwise: Mapping[str, str]) -> None:
        self.recipe, self.names, self.equal, self.otherwise = recipe, Names(recipe), equal, otherwise
        self.labelled = [name for name, label in recipe.labels.items() if not (label.table or label.lists)]
        self.copies = 0
        self.rejected: list[Rejected] = []
        self.ignored = 0
        self.files: dict[_Key, list[Entry | None]] = {}
        self.ids: dict[_Key, str] = {}
        self.labels: dict[_Key, dict[str, Any]] = {}
        self._contrary: dict[_Key, list[str]] = {}
        self._duplicates: dict[tuple[_Key, int], list[Entry]] = {}
        known, self._of_band = expectations(recipe), [band is not None for _, band in recipe.files]
        self._expected = tuple(known[name].of_file for name, _ in recipe.files)
        self._most = tuple(expected.file_bytes for expected in self._expected)

    def add(self, entry: Entry) -> None:
        match = self.names.read(entry.key)
        if match is None or not _spelled(entry.key):
            self._set_aside(entry)
            return
        place = self.names.column(match)
        if not 0 < entry.size <= self._most[place]:
            self.rejected.append(_size_rejection(entry, self._expected[place]))
            return
        try:
            told = labels_of(self.recipe, match)
            spelled = self.recipe.patch.id.format(**match)
            spelled = self.otherwise.get(spelled, spelled)
        except ValueError as error:
            self.rejected.append(Rejected(entry.key, "unknown label", str(error)))
            return
        if self._of_band[place] and any(sign in entry.key for sign in SIGNS):
            detail = f"its path has one of {SIGNS}, in which the paths of an image's bands are put together: rename it"
            self.rejected.append(Rejected(entry.key, "wrong name", detail))
            return
        told_apart = natural(spelled) if self.recipe.format > 1 else ()  # before, numbers alone: p030 is p30
        numbers = int(match.get("scene", 0)), int(match.get("patch", 0))
        key = self.names.seasons[match["season"]], *numbers, told_apart
        self.ids[key] = min(spelled, self.ids.get(key, spelled))
        row = self.files.setdefault(key, [None] * len(self._expected))
        taken = row[place]
        if taken is not None:
            self._duplicates.setdefault((key, place), [taken]).append(entry)
            return
        row[place] = entry
        self._learn(key, entry, told)

    def _learn(self, key: _Key, entry: Entry, told: Mapping[str, Any]) -> None:
        """Keep the labels of a patch; files of one patch that tell different ones are no one patch."""
        known = self.labels.setdefault(key, {})
        for name, value in told.items():
            if known.setdefault(name, value) != value:
                self._contrary.setdefault(key, []).append(f"{entry.key} tells {name} {value!s}, others {known[name]!s}")

    def _drop_contrary(self) -> None:
        for key, details in self._contrary.items():
            self.files.pop(key, None)
            self.rejected.append(Rejected(self.ids[key], "different labels", "; ".join(details)))
        needed = [name for name in self.labelled if self.recipe.labels[name].type not in NOTHING]
        for key in [key for key in self.files if any(name not in self.labels[key] for name in needed)]:
            lacks = ", ".join(name for name in needed if name not in self.labels[key])
            self.rejected.append(Rejected(self.ids[key], "unknown label", f"no file tells its {lacks}"))
            del self.files[key]

    def refuse(self, item: Rejected) -> None:
        if self.names.ignored(item.path):
            self.ignored += 1
        else:
            self.rejected.append(item)

    def _set_aside(self, entry: Entry) -> None:
        if self.names.ignored(entry.key):
            self.ignored += 1
        else:
            detail = f"fits neither the pattern of recipe {self.recipe.name!r} nor its list of files to ignore"
            if not _spelled(entry.key):
                detail = "its path is no UTF-8, so no cube can keep it: rename the file, or the folder it lies in"
            shown = entry.key.encode("utf-8", "backslashreplace").decode()
            self.rejected.append(Rejected(shown, "wrong name", detail))

    def _drop_duplicates(self) -> None:
        for (key, place), entries in self._duplicates.items():
            entries.sort(key=lambda entry: entry.key)
            if self.equal(entries):
                self.files[key][place] = entries[0]
                self.copies += len(entries) - 1
                continue
            self.files[key][place] = None
            names = sorted(entry.key for entry in entries)
            for name in names:
                others = ", ".join(other for other in names if other != name)
                detail = f"the same patch also stands in {others}; which one is meant? Remove all but one"
                self.rejected.append(Rejected(name, "duplicate", detail))

    def inventory(self, source: str) -> Inventory:
        self._drop_duplicates()
        self._drop_contrary()
        keys = sorted(self.files)
        shape = len(keys), len(self._expected)
        path, size, stamp = np.full(shape, "", object), np.full(shape, -1, np.int64), np.full(shape, "", object)
        for row, key in enumerate(keys):
            for place, entry in enumerate(self.files[key]):
                if entry is not None:
                    path[row, place], size[row, place], stamp[row, place] = entry.key, entry.size, entry.stamp
        columns = np.array([key[:3] for key in keys], np.int64).reshape(-1, 3)
        if "patch" not in compiled(self.recipe.source.pattern).groupindex:
            columns[:, 2] = places_in(columns[:, :2])
        return Inventory(
            source=source,
            modalities=tuple(self.recipe.modalities),
            seasons=tuple(self.recipe.seasons),
            patch=np.array([self.ids[key] for key in keys], object),
            season=columns[:, 0].astype(np.int8),
            scene=columns[:, 1].astype(np.int32),
            number=columns[:, 2].astype(np.int32),
            path=path,
            size=size,
            stamp=stamp,
            labels={name: self._column(name, keys) for name in self.labelled},
            found=self._found(keys),
            ignored=self.ignored,
            copies=self.copies,
            bands=self._bands(),
        ).reject(self.rejected)

    def _bands(self) -> tuple[tuple[str, str], ...]:
        """Return modality and band of each file; nothing where every image is one file."""
        files = [(name, band.name if band else "") for name, band in self.recipe.files]
        return tuple(files) if any(band for _, band in files) else ()

    def _found(self, keys: list[_Key]) -> dict[str, tuple[int, int]]:
        patches = Counter(key[0] for key in keys)
        scenes = Counter(season for season, _ in {key[:2] for key in keys})
        return {name: (scenes[place], patches[place]) for place, name in enumerate(self.recipe.seasons)}

    def _column(self, name: str, keys: list[_Key]) -> NDArray[Any]:
        """Return a label (patch), with what stands for nothing where no file tells it."""
        label = self.recipe.labels[name]
        return np.array([self.labels[key].get(name, NOTHING.get(label.type)) for key in keys], label.dtype)


def _spelled(key: str) -> bool:
    """Tell whether a path is text: the names of a disk may be any bytes."""
    if key.isascii():
        return True
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _size_rejection(entry: Entry, expected: Expectation) -> Rejected:
    """Return why the listing of a file tells enough of it."""
    if entry.size < 0:
        return Rejected(entry.key, "unreadable", "a broken link, a pipe or a device: no regular file")
    if entry.size == 0:
        return Rejected(entry.key, "empty", "the file has no bytes")
    try:
        expected.check_size(entry.size)
    except RejectedFile as error:
        return rejection(entry.key, error)
    raise AssertionError(entry)
