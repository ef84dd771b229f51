from __future__ import annotations

import numpy as np
import pytest
from making import Built, Made

from cube import open_cube
from cube.errors import RequestError
from cube.read.splits import split_leaks


def test_a_split_by_scene_shares_no_ground(tiny_cube: Built) -> None:
    assert split_leaks(open_cube(tiny_cube.url)) == []


def test_patches_of_one_scene_in_two_splits_are_named(tiny_cube: Built, made: Made) -> None:
    cube = open_cube(tiny_cube.url)
    mine = np.where(cube.number.values == 33, "val", "train")  # the upper right of spring/1, the middle of the left of summer/1
    leaks = {(leak.season, leak.scene): leak for leak in split_leaks(cube.assign_coords(mine=("patch", mine)), "mine")}
    assert list(leaks) == [("spring", 1), ("summer", 1)]
    leak = leaks["spring", 1]
    assert leak.splits == ("train", "val")
    # Patch 33 has tiles (0..1, 3..4) of a 3 × 4 scene without the patch at (1, 2): 37 at (1, 3) shares two of them, 32 two.
    assert leak.tiles == 3
    assert leak.patches == tuple(f"ROIs1158_spring_1_p{number}" for number in (32, 33, 37))


def test_a_margin_keeps_splits_apart(tiny_cube: Built) -> None:
    cube = open_cube(tiny_cube.url, where="season=spring and scene=1 and number=30,33,38,41")  # the four corners
    split = np.array(["a", "b", "c", "d"])
    assert split_leaks(cube.assign_coords(split=("patch", split))) == []


def test_an_unknown_label_is_refused(tiny_cube: Built) -> None:
    with pytest.raises(RequestError, match="no per-patch label"):
        split_leaks(open_cube(tiny_cube.url), "fold")
