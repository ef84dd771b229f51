"""What the pixels of a cube say as a whole and scene by scene: statistics, classes and overview pictures.

A survey is taken while the pixels pass by in a verification: workers tally each distinct tile once, a ``Surveyor`` folds what
they say. Nothing depends on the order in which they finish.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.format.tiles import TileLayout
from cube.format.versions import SUPERSEDES, current_rows
from cube.recipes.recipe import Recipe
from cube.recipes.sections import Modality
from cube.survey.carrying import carry_over, goes_on
from cube.survey.counted import Counted
from cube.survey.folds import Fold
from cube.survey.ground import Ground, GroundSlice, find_ground
from cube.survey.overviews import paste, png
from cube.survey.summary import PatchClasses, Summary, Survey
from cube.survey.tally import Tally, TallyJob, reduction

UNLISTED = "not in the legend"
"""Name under which pixels of no class of their legend are counted."""
_RGB = ("red", "green", "blue")

Array = NDArray[Any]


def tally_jobs(recipe: Recipe) -> dict[str, TallyJob]:
    """Return what is counted and drawn of each modality."""
    return {name: _job(recipe, modality) for name, modality in recipe.modalities.items()}


def _job(recipe: Recipe, modality: Modality) -> TallyJob:
    names = [band.common_name for band in modality.bands]
    codes = {
        place: tuple(item.value for item in recipe.legends[band.legend])
        for place, band in enumerate(modality.bands)
        if band.legend is not None
    }
    colored = set(_RGB) <= set(names)
    first = next(iter(codes), None) if modality.dtype == "uint8" else None
    return TallyJob(
        histogram=modality.histogram_range,
        drawn=tuple(names.index(color) for color in _RGB) if colored else (first or 0,),
        shown=modality.picture_range if colored or first is None else None,
        codes=codes,
    )


class Surveyor:
    """Takes the survey of one cube: told the labels once, then what each batch says, in any order."""

    def __init__(self, recipe: Recipe, counted: Counted | None = None) -> None:
        """Take a survey from where an earlier one of the same cube's first patches has ended, if that can be gone on with."""
        self._recipe = recipe
        self._counted = counted
        self._before: Ground | None = None
        self.jobs = tally_jobs(recipe)
        self._ground: Ground | None = None
        self._layouts: Mapping[str, TileLayout] = {}
        self._present: Array = np.empty((0, 0), bool)
        self._tallies: dict[int, Mapping[str, Tally]] = {}
        self._left: Counter[int] = Counter()
        self._pictures: dict[tuple[int, str], NDArray[np.uint8]] = {}
        self._overviews: dict[tuple[int, str], bytes] = {}

    @property
    def patches(self) -> int:
        """Patches, the first of the cube, that an earlier survey has counted; known once the labels are."""
        return self._counted.patches if self._counted is not None else 0

    def prepare(self, labels: Mapping[str, Array], layouts: Mapping[str, TileLayout]) -> None:
        """Find the ground of all scenes, and whether the earlier survey still stands."""
        every, labels = labels, _current(labels)
        layout = max(layouts.values(), key=lambda layout: layout.size)
        self._ground = find_ground(labels, size=layout.size, tile=layout.tile)
        self._layouts, self._present = layouts, labels["present"]
        scene = self._ground.patches.scene
        if self._counted is not None:
            first = {name: values[: self.patches] for name, values in every.items() if name != "crs_wkt"}
            self._before = find_ground(_current(first | _definitions(every)), size=layout.size, tile=layout.tile)
            if not goes_on(self._counted, self._before, self._ground, self._layouts):
                self._counted = self._before = None
        batches = np.arange(len(scene)) // layout.slots
        looked_at = batches >= self.patches // layout.slots
        self._left = Counter(np.unique(np.stack([scene, batches])[:, looked_at], axis=1)[0].tolist())

    def slice(self, rows: slice) -> GroundSlice:
        """Return what the batch of these patches must know."""
        assert self._ground is not None
        return self._ground.take(rows, max(0, self.patches - rows.start))

    def add(self, index: int, tallies: Mapping[str, Tally]) -> None:
        """Take what one batch says; pictures of scenes that are whole now are finished."""
        for name, tally in tallies.items():
            self._paste(name, tally)
        for scene in {int(scene) for tally in tallies.values() for scene in tally.scenes}:
            self._left[scene] -= 1
            if not self._left[scene]:
                self._finish(scene)
        self._tallies[index] = {name: tally.without_pieces() for name, tally in tallies.items()}

    def survey(self) -> Survey:
        """Return the survey; every batch must have been told."""
        assert self._ground is not None
        assert not +self._left
        ground, numbers = self._ground, range(len(self._ground.scenes))
        folded = {name: self._fold(name) for name in self.jobs}
        pictures = {number: self._pictures_of(number) for number in numbers}
        return Survey(
            whole=self._summary(folded, None),
            scenes={ground.scenes[number]: self._summary(folded, number) for number in numbers},
            grounded=dict(zip(ground.scenes, ground.grounded.tolist(), strict=True)),
            drawn=dict(zip(ground.scenes, ground.drawn.tolist(), strict=True)),
            tiles={name: (fold.used, fold.stored) for name, fold in folded.items()},
            patch_classes=self._patch_classes(folded),
            overviews={ground.scenes[number]: of for number, of in pictures.items()},
            reduction={name: reduction(layout.tile) for name, layout in self._layouts.items()},
        )

    def counted(self) -> Counted:
        """Return what must be kept for a survey that goes on from here."""
        assert self._ground is not None
        folds = {name: self._fold(name).values() for name in self.jobs}
        scenes, grounded, drawn = self._ground.scenes, self._ground.grounded, self._ground.drawn
        return Counted(patches=len(self._present), scenes=scenes, grounded=grounded, drawn=drawn, folds=folds)

    def _pictures_of(self, number: int) -> Mapping[str, bytes]:
        """Return the pictures of a scene; where nothing was added, they are those of the earlier survey."""
        if (number, next(iter(self.jobs))) in self._overviews:
            return {name: self._overviews[number, name] for name in self.jobs}
        assert self._ground is not None
        assert self._counted is not None
        return self._counted.pictures[self._ground.scenes[number]]

    def _paste(self, name: str, tally: Tally) -> None:
        for scene in np.unique(tally.uses[:, 1]).tolist():
            uses = tally.uses[tally.uses[:, 1] == scene]
            paste(self._picture(scene, name), tally.pieces, uses[:, [0, 2, 3]])

    def _picture(self, scene: int, name: str) -> NDArray[np.uint8]:
        if (scene, name) not in self._pictures:
            assert self._ground is not None
            layout = self._layouts[name]
            pixels = self._ground.shape[scene] * layout.size // self._ground.patches.side
            height, width = -(-pixels // reduction(layout.tile))
            shape = max(1, height), max(1, width), len(self.jobs[name].drawn)
            self._pictures[scene, name] = np.zeros(shape, np.uint8)
            if self._counted is not None and self._before is not None and scene < len(self._counted.scenes):
                before = self._counted.pictures[self._counted.scenes[scene]][name]
                carry_over(before, self._pictures[scene, name], scene, (self._before, self._ground), layout)
        return self._pictures[scene, name]

    def _finish(self, scene: int) -> None:
        for name in self.jobs:
            self._overviews[scene, name] = png(self._picture(scene, name), self._palette(name))
            del self._pictures[scene, name]

    def _palette(self, name: str) -> list[str]:
        job, modality = self.jobs[name], self._recipe.modalities[name]
        if job.shown is not None:
            return []
        return [item.color for item in self._recipe.legends[modality.bands[job.drawn[0]].legend or ""]]

    def _fold(self, name: str) -> Fold:
        assert self._ground is not None
        before = self._counted.folds[name] if self._counted is not None else {}
        fold = Fold.of(self.jobs[name], self._layouts[name], len(self._ground.scenes), before)
        for index in sorted(self._tallies):
            fold.add(self._tallies[index][name])
        return fold

    def _summary(self, folded: Mapping[str, Fold], scene: int | None) -> Summary:
        bands = {name: fold.statistics(scene) for name, fold in folded.items()}
        classes = {}
        for legend, name, band in self._legends():
            counts = folded[name].classes[band]
            row = counts.sum(axis=0) if scene is None else counts[scene]
            names = [*(item.name for item in self._recipe.legends[legend]), UNLISTED]
            total = max(1, int(row.sum()))
            classes[legend] = {label: round(n / total, 6) for label, n in zip(names, row.tolist(), strict=True) if n}
        return Summary(bands=bands, classes=classes)

    def _legends(self) -> list[tuple[str, str, int]]:
        """Return legend, modality and band, for each legend the first band that has it."""
        found = {
            band.legend: (band.legend, name, place)
            for name, modality in reversed(list(self._recipe.modalities.items()))
            for place, band in reversed(list(enumerate(modality.bands)))
            if band.legend is not None
        }
        return [found[legend] for legend in self._recipe.legends if legend in found]

    def _patch_classes(self, folded: Mapping[str, Fold]) -> dict[str, PatchClasses]:
        classes = {}
        for legend, name, band in self._legends():
            counts = np.concatenate(folded[name].patches[band])[:, :-1]
            shares = counts / np.float32(self._layouts[name].size ** 2)
            shares[~self._present[:, list(self.jobs).index(name)]] = np.nan
            classes[legend] = PatchClasses(self.jobs[name].codes[band], shares.astype(np.float32, copy=False))
        return classes


def _current(labels: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return labels in which patches that others have replaced have no image."""
    if SUPERSEDES not in labels:
        return labels
    present = np.zeros_like(labels["present"])
    rows = current_rows(labels[SUPERSEDES])
    present[rows] = labels["present"][rows]
    return {**labels, "present": present}


def _definitions(labels: Mapping[str, Array]) -> dict[str, Array]:
    return {name: labels[name] for name in ("crs_wkt",) if name in labels}
