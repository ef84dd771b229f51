"""What the data are used for, as pure functions: labels, masks, scaling, targets, measures, augmentation, dealing scenes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.errors import RequestError
from cube.tasks import (
    Augmentation,
    color_target,
    deal,
    mask_table,
    merged,
    nrmse,
    psnr,
    scaled,
    several_labels,
    single_label,
    spectral_angle,
    ssim,
    standardized,
)
from cube.tasks.labelling import label_texts, patch_labels

SEED = 2104

# Labels


def test_the_wider_class_of_the_most_frequent_class_is_not_the_label() -> None:
    shares = np.array([[0.4, 0.3, 0.3], [0.5, 0.25, 0.25], [0.0, 0.5, 0.5]], np.float32)
    names, wider = merged(shares, ["water", "wood", "wood"])
    assert names == ["water", "wood"]
    np.testing.assert_array_equal(wider, np.array([[0.4, 0.6], [0.5, 0.5], [0, 1]], np.float32))
    assert single_label(shares).tolist() == [0, 0, 1]
    assert single_label(wider).tolist() == [1, 0, 1]


def test_labels_of_nothing_are_none() -> None:
    shares = np.array([[np.nan, np.nan], [0, 0], [0.1, 0.9], [0.0999, 0.9001]], np.float32)
    assert single_label(shares).tolist() == [-1, -1, 1, 1]
    assert several_labels(shares).tolist() == [[False, False], [False, False], [True, True], [False, True]]
    assert label_texts(["a", "b"], shares) == (["", "", "b", "b"], ["", "", "a; b", "b"])


def test_classes_without_a_wider_one_are_left_out() -> None:
    names, wider = merged(np.array([[0.5, 0.2, 0.3]]), ["", "x", "x"])
    assert names == ["x"]
    np.testing.assert_allclose(wider, [[0.5]])
    with pytest.raises(RequestError, match="2 groups for the shares of 3 classes"):
        merged(np.ones((1, 3)), ["x", "y"])


def test_ways_are_named_by_their_number() -> None:
    shares = np.array([[0.5, 0.2, 0.3]])
    assert {name: names for name, (names, _) in patch_labels(["a", "b", "c"], ["x", "x", "y"], shares).items()} == {
        "label3": ["a", "b", "c"],
        "label2": ["x", "y"],
    }
    assert list(patch_labels(["a", "b", "c"], ["", "", ""], shares)) == ["label3"]


def test_masks_count_from_zero_and_ignore_the_rest() -> None:
    codes, groups = [1, 2, 8, 9, 17], ["forest", "forest", "savanna", "savanna", "water"]
    classes, table = mask_table(codes, groups)
    assert classes == ["forest", "savanna", "water"]
    assert table[[0, 1, 2, 8, 9, 17, 255]].tolist() == [255, 0, 0, 1, 1, 2, 255]
    classes, table = mask_table(codes, groups, leave_out=["savanna"], ignored=9)
    assert classes == ["forest", "water"]
    assert table[[1, 8, 17, 3]].tolist() == [0, 9, 1, 9]
    assert mask_table([5, 7])[0] == ["5", "7"]
    with pytest.raises(RequestError, match="no class is 'swamp'; there are forest, savanna, water"):
        mask_table(codes, groups, leave_out=["swamp"])


# Values


def test_published_scaling_of_radar_and_optical_images() -> None:
    radar = np.array([-30.0, -25.0, -12.5, 0.0, 3.0, np.nan, -np.inf, np.inf])
    expected = np.clip(np.nan_to_num(radar, nan=0.0), -25, 0) / 25 + 1
    np.testing.assert_allclose(scaled(radar, -25, 0), expected, rtol=1e-6)
    optical = np.array([0, 5000, 10000, 65535], np.uint16)
    np.testing.assert_array_equal(scaled(optical, 0, 10_000), np.array([0, 0.5, 1, 1], np.float32))
    with pytest.raises(RequestError, match="a smaller and a larger"):
        scaled(radar, 0, -25)


def test_standardized_bands_have_mean_0_and_deviation_1() -> None:
    values = np.random.default_rng(SEED).integers(0, 10000, (3, 2, 16, 16)).astype(np.uint16)
    made = standardized(values, values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3)))
    np.testing.assert_allclose(made.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(made.std(axis=(0, 2, 3)), 1, atol=1e-5)
    assert made.dtype == np.float32
    with pytest.raises(RequestError, match="for each of 2 bands"):
        standardized(values, [1], [1])
    with pytest.raises(RequestError, match="above 0"):
        standardized(values, [1, 1], [1, 0])


def test_the_target_of_colourisation_has_the_radar_image_as_its_intensity() -> None:
    rng = np.random.default_rng(SEED)
    radar, colors = rng.normal(-12, 4, (2, 16, 16)), rng.uniform(200, 3000, (2, 3, 16, 16))
    target = color_target(radar, colors)
    intensity, expected = target.mean(axis=1), colors.mean(axis=1)
    for patch in range(2):
        assert np.corrcoef(intensity[patch].ravel(), radar[patch].ravel())[0, 1] > 0.99999
        np.testing.assert_allclose(intensity[patch].mean(), expected[patch].mean(), rtol=1e-5)
        np.testing.assert_allclose(intensity[patch].std(), expected[patch].std(), rtol=1e-4)
        np.testing.assert_allclose(target[patch, 0] - target[patch, 1], colors[patch, 0] - colors[patch, 1], atol=0.01)
    flat = color_target(np.zeros((1, 16, 16)), colors[:1])
    np.testing.assert_allclose(flat.mean(axis=1), expected[:1].mean(), rtol=1e-5)
    with pytest.raises(RequestError, match=r"expected \(…, 3, y, x\) and \(…, y, x\)"):
        color_target(radar, colors[:, :2])


# Measures


def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    true = rng.uniform(1, 100, (2, 3, 15, 18))
    return true + rng.normal(0, 5, true.shape), true


def test_equal_pictures_are_perfect() -> None:
    _, true = pictures()
    assert psnr(true, true, peak=100).tolist() == [np.inf] * 2
    np.testing.assert_allclose(nrmse(true, true), 0)
    np.testing.assert_allclose(spectral_angle(true, true), 0, atol=1e-5)
    np.testing.assert_allclose(ssim(true, true, peak=100), 1)


def test_measures_are_those_of_their_definitions() -> None:
    made, true = pictures()
    for patch in range(2):
        a, b = made[patch], true[patch]
        np.testing.assert_allclose(psnr(made, true, peak=100)[patch], 20 * np.log10(100 / np.sqrt(((a - b) ** 2).mean())))
        bands = [np.sqrt(((a[k] - b[k]) ** 2).mean()) / np.sqrt((b[k] ** 2).mean()) for k in range(3)]
        np.testing.assert_allclose(nrmse(made, true)[patch], np.mean(bands))
        angles = [
            np.degrees(np.arccos(a[:, y, x] @ b[:, y, x] / np.linalg.norm(a[:, y, x]) / np.linalg.norm(b[:, y, x])))
            for y, x in product(range(15), range(18))
        ]
        np.testing.assert_allclose(spectral_angle(made, true)[patch], np.mean(angles))
        np.testing.assert_allclose(ssim(made, true, peak=100)[patch], naive_ssim(a, b, 100, 7))


def naive_ssim(a: np.ndarray, b: np.ndarray, peak: float, window: int) -> float:
    found = []
    for band, y, x in product(range(len(a)), range(a.shape[1] - window + 1), range(a.shape[2] - window + 1)):
        p, q = (part[band, y : y + window, x : x + window].ravel() for part in (a, b))
        c1, c2, both = (0.01 * peak) ** 2, (0.03 * peak) ** 2, np.cov(p, q)
        above = (2 * p.mean() * q.mean() + c1) * (2 * both[0, 1] + c2)
        found.append(above / ((p.mean() ** 2 + q.mean() ** 2 + c1) * (both[0, 0] + both[1, 1] + c2)))
    return float(np.mean(found))


def test_what_cannot_be_measured_is_no_number() -> None:
    zeros = np.zeros((1, 2, 8, 8))
    assert np.isnan(nrmse(zeros + 1, zeros)).all()
    assert np.isnan(spectral_angle(zeros, zeros + 1)).all()
    with pytest.raises(RequestError, match="of one shape"):
        psnr(zeros, zeros[..., :4], peak=1)
    with pytest.raises(RequestError, match="odd number of at most 8"):
        ssim(zeros, zeros, peak=1, window=9)


# Augmentation


def batch_of(ids: list[str], sides: dict[str, int]) -> dict[str, np.ndarray]:
    """Return a batch in which every pixel of every image tells its place on the ground."""
    most = max(sides.values())
    batch: dict[str, np.ndarray] = {"patch": np.array(ids), "label": np.arange(len(ids))}
    for name, side in sides.items():
        corner = np.arange(side) * (most // side)
        ground = corner[:, None] * most + corner
        batch[name] = np.broadcast_to(ground, (len(ids), 2, side, side)).copy()
    return batch


@settings(deadline=None, max_examples=40)
@given(
    ids=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=9, unique=True),
    crop=st.sampled_from([None, 8, 16, 32]),
    flips=st.booleans(),
    turns=st.booleans(),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_images_of_a_patch_stay_aligned(
    ids: list[str], crop: int | None, flips: bool, turns: bool, seed: int, epoch: int
) -> None:
    change, batch = Augmentation(crop=crop, flips=flips, turns=turns, seed=seed), batch_of(ids, {"fine": 32, "coarse": 16})
    changed = change(batch, epoch)
    side = crop or 32
    assert changed["fine"].shape == (len(ids), 2, side, side)
    assert changed["coarse"].shape == (len(ids), 2, side // 2, side // 2)
    for patch in range(len(ids)):
        fine, coarse = changed["fine"][patch, 0], changed["coarse"][patch, 0]
        blocks = fine.reshape(side // 2, 2, side // 2, 2).min(axis=(1, 3))
        np.testing.assert_array_equal(blocks, coarse)
        np.testing.assert_array_equal(fine, changed["fine"][patch, 1])
        if crop is None:
            assert sorted(fine.ravel()) == sorted(batch["fine"][patch, 0].ravel())
    alone = {name: values[-1:] for name, values in batch.items()}
    np.testing.assert_array_equal(change(alone, epoch)["fine"][0], changed["fine"][-1])
    assert changed["label"] is batch["label"]


def test_augmentation_differs_by_epoch_and_seed_and_reaches_all_turns() -> None:
    batch = batch_of([f"p{number}" for number in range(200)], {"s": 4})
    first = Augmentation(seed=1)(batch, 0)["s"]
    assert not np.array_equal(first, Augmentation(seed=1)(batch, 1)["s"])
    assert not np.array_equal(first, Augmentation(seed=2)(batch, 0)["s"])
    np.testing.assert_array_equal(first, Augmentation(seed=1)(batch, 0)["s"])
    assert len({image.tobytes() for image in first}) == 8
    np.testing.assert_array_equal(Augmentation(flips=False, turns=False)(batch)["s"], batch["s"])


@pytest.mark.parametrize("crop", [0, -2, 33, 3])
def test_crops_that_cannot_be_are_refused(crop: int) -> None:
    with pytest.raises(RequestError, match=r"expected a multiple of 2 of at most 32 pixels"):
        Augmentation(crop=crop)(batch_of(["a"], {"fine": 32, "coarse": 16}))


# Dealing


def test_scenes_of_a_whole_data_set_are_dealt_with_the_same_mixture() -> None:
    rng = np.random.default_rng(1)
    scenes, shares = [], []
    for scene in range(226):
        mixture, count = rng.dirichlet(np.full(17, 0.3)), int(rng.integers(300, 900))
        scenes += [scene] * count
        shares.append(rng.dirichlet(mixture * 20 + 0.01, count))
    groups, parts = np.array(scenes), {"train": 0.8, "val": 0.1, "test": 0.1}
    dealt = deal(groups, parts, np.concatenate(shares))
    assert dealt.worst < 0.01
    for name, share in parts.items():
        assert abs((dealt.names == name).mean() - share) < 0.01
    assert all(len(set(dealt.names[groups == scene])) == 1 for scene in range(226))
    np.testing.assert_array_equal(deal(groups, parts, np.concatenate(shares)).names, dealt.names)


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=25), seed=st.integers(0, 3), data=st.data())
def test_groups_stay_whole_and_no_part_is_empty(sizes: list[int], seed: int, data: st.DataObject) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    count = data.draw(st.integers(1, min(4, len(sizes))))
    parts = {f"part{number}": data.draw(st.floats(0.05, 1)) for number in range(count)}
    shares = np.random.default_rng(seed).dirichlet(np.ones(4), len(groups))
    shares[::7] = np.nan
    names = deal(groups, parts, shares, seed=seed).names
    assert set(names) == set(parts)
    assert all(len(set(names[groups == group])) == 1 for group in range(len(sizes)))


def test_fixed_parts_stay() -> None:
    groups, fixed = np.repeat(np.arange(6), 2), np.array(["test"] * 2 + [""] * 10)
    names = deal(groups, {"train": 0.6, "val": 0.4}, fixed=fixed).names
    assert names[:2].tolist() == ["test", "test"]
    assert set(names[2:]) == {"train", "val"}
    with pytest.raises(RequestError, match="0 is in a fixed part and is to be dealt as well"):
        deal(groups, {"train": 1}, fixed=np.array(["test"] + [""] * 11))
    with pytest.raises(RequestError, match="there are 1 groups to deal to 2 parts"):
        deal([1, 1], {"a": 1, "b": 1})
    with pytest.raises(RequestError, match="name → share above 0"):
        deal([1, 2], {"a": 0})
