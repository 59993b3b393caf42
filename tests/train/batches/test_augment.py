from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skystill.raster.input_spec import RGB
from skystill.symmetry import SYMMETRIES, transform, transform_back
from skystill.train.batches.augment import Augmentation, draw_augmentation, jitter_colors

symmetries = st.integers(0, SYMMETRIES - 1)


@given(symmetries, st.integers(1, 6), st.integers(1, 6))
def test_what_goes_through_a_symmetry_comes_back(symmetry: int, height: int, width: int) -> None:
    array = np.arange(height * width * 3).reshape(height, width, 3)
    assert np.array_equal(transform_back(transform(array, symmetry), symmetry), array)


NUMBERED = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
BY_HAND = [
    [[1, 2, 3], [4, 5, 6], [7, 8, 9]],  # 0: as it is
    [[3, 6, 9], [2, 5, 8], [1, 4, 7]],  # 1: a quarter turn to the left
    [[9, 8, 7], [6, 5, 4], [3, 2, 1]],  # 2: half a turn
    [[7, 4, 1], [8, 5, 2], [9, 6, 3]],  # 3: a quarter turn to the right
    [[3, 2, 1], [6, 5, 4], [9, 8, 7]],  # 4 to 7: the same, then mirrored left to right
    [[9, 6, 3], [8, 5, 2], [7, 4, 1]],
    [[7, 8, 9], [4, 5, 6], [1, 2, 3]],
    [[1, 4, 7], [2, 5, 8], [3, 6, 9]],
]


@pytest.mark.parametrize(("symmetry", "expected"), list(enumerate(BY_HAND)))
def test_each_symmetry_by_hand(symmetry: int, expected: list[list[int]]) -> None:
    assert transform(NUMBERED, symmetry).tolist() == expected
    assert transform_back(np.array(expected), symmetry).tolist() == NUMBERED.tolist()
    crop = Augmentation(0, 0, 3, symmetry)
    assert crop.apply_to_labels(NUMBERED).tolist() == expected
    assert crop.apply_to_valid(NUMBERED == 2).tolist() == (np.array(expected) == 2).tolist()
    planes = np.stack([NUMBERED, NUMBERED + 10, NUMBERED + 20], axis=-1)
    for channel in range(3):
        wanted = (np.array(expected) + 10 * channel).tolist()
        assert crop.apply_to_image(planes)[..., channel].tolist() == wanted
        assert crop.apply_to_logits(planes.astype(np.float16), 1)[..., channel].tolist() == wanted


def test_there_are_as_many_symmetries_as_are_written_out_here() -> None:
    assert len(BY_HAND) == SYMMETRIES
    assert len({str(one) for one in BY_HAND}) == SYMMETRIES


@given(st.data(), st.integers(3, 40), st.integers(3, 40), st.integers(1, 50), st.integers(0, 999))
def test_image_and_labels_stay_aligned(data: st.DataObject, height: int, width: int, size: int, seed: int) -> None:
    """Every pixel carries its own place; after a view image, labels and inside still tell the same place."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
    labels = ((rows * 7 + columns * 3) % 250).astype(np.uint8)
    view = draw_augmentation(np.random.default_rng(seed), height, width, size)
    cut, truth, inside = (
        view.apply_to_image(image),
        view.apply_to_labels(labels),
        view.apply_to_valid(np.ones((height, width), bool)),
    )
    assert cut.shape == (size, size, 3)
    expected = (cut[..., 0].astype(int) * 7 + cut[..., 1].astype(int) * 3) % 250
    assert np.array_equal(truth[inside], expected[inside])
    assert (truth[~inside] == 255).all()
    assert inside.sum() == min(size, height) * min(size, width)


def test_a_crop_and_its_padding_by_hand() -> None:
    """From row 1 and column 1; beyond row 2 and column 2 there is no image. Then a quarter turn to the left."""
    crop = Augmentation(1, 1, 3)
    assert crop.apply_to_labels(NUMBERED).tolist() == [[5, 6, 255], [8, 9, 255], [255, 255, 255]]
    assert crop.apply_to_valid(NUMBERED > 5).tolist() == [[False, True, False], [True, True, False], [False] * 3]
    turned = Augmentation(1, 1, 3, symmetry=1)
    assert turned.apply_to_labels(NUMBERED).tolist() == [[255, 255, 255], [6, 9, 255], [5, 8, 255]]
    image = np.stack([NUMBERED] * 3, axis=-1)
    assert turned.apply_to_image(image)[..., 1].tolist() == [[0, 0, 0], [6, 9, 0], [5, 8, 0]]  # black
    assert Augmentation(0, 1, 2).apply_to_labels(NUMBERED).tolist() == [[2, 3], [5, 6]]


def test_logits_of_blocks_by_hand() -> None:
    """3x3 blocks of 4x4 pixels: the crop begins at row 4, column 0, and is 2x2 blocks large; mirrored."""
    blocks = NUMBERED[..., None].astype(np.float16)
    assert Augmentation(4, 0, 8, symmetry=4).apply_to_logits(blocks, 4)[..., 0].tolist() == [[5, 4], [8, 7]]
    # 1x1 block seen, 2x2 blocks large: each value twice over both sides
    assert Augmentation(8, 4, 8, seen=4).apply_to_logits(blocks, 4)[..., 0].tolist() == [[8, 8], [8, 8]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
def test_channels_turn_together_as_they_would_one_by_one(symmetry: int, dtype: type) -> None:
    image = np.arange(5 * 7 * 6).astype(dtype).reshape(5, 7, 6)[1:, :, 1:4]  # a window of a larger array
    each = [transform(image[..., channel], symmetry) for channel in range(3)]
    assert np.array_equal(transform(image[:, :, :3], symmetry), np.stack(each, axis=-1))


@given(st.integers(1, 4), st.integers(3, 40), st.integers(3, 40), st.integers(1, 9), st.integers(0, 999))
def test_what_is_kept_in_blocks_goes_through_a_view_as_its_pixels_do(
    side: int, height: int, width: int, blocks: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 100, (height, width, 2)).astype(np.float32)
    padded = np.pad(pixels, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    kept = padded.reshape(-(-height // side), side, -1, side, 2).mean((1, 3))
    view = draw_augmentation(rng, height, width, side * blocks, side=side)
    found, there = view.apply_to_logits(kept, side), view.apply_to_valid(np.ones((height, width), bool))
    seen = view.apply_to_logits(pixels, 1).reshape(blocks, side, blocks, side, 2).mean((1, 3))
    whole = there.reshape(blocks, side, blocks, side).all((1, 3))
    assert found.shape == (blocks, blocks, 2)
    assert np.allclose(found[whole], seen[whole])


def test_a_zoomed_view_by_hand() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert Augmentation(0, 0, 2, seen=4).apply_to_labels(labels).tolist() == [[5, 7], [13, 15]]
    assert Augmentation(1, 1, 4, seen=2).apply_to_labels(labels).tolist() == [[5, 5, 6, 6]] * 2 + [[9, 9, 10, 10]] * 2
    assert (
        Augmentation(3, 3, 4, seen=2).apply_to_valid(labels < 99).tolist()
        == [[True, True, False, False]] * 2 + [[False] * 4] * 2
    )


def test_a_zoomed_image_by_hand() -> None:
    """Bilinear: a result pixel is the mean of its neighbours, weighted by how near their centres are."""
    row = np.array([0, 70, 140, 210], np.uint8)
    image = np.stack([np.tile(row, (4, 1))] * 3, axis=-1)
    # to half the size: centres 0.5, 0.5 and 1.5 pixels away, of a reach of 2: (0.75*0 + 0.75*70 + 0.25*140) / 1.75 = 50
    assert Augmentation(0, 0, 2, seen=4).apply_to_image(image)[..., 0].tolist() == [[50, 160]] * 2
    # to twice the size: 3/4 of the nearer pixel and 1/4 of the other
    pair = np.stack([np.tile(np.array([0, 100], np.uint8), (2, 1))] * 3, axis=-1)
    assert Augmentation(0, 0, 4, seen=2).apply_to_image(pair)[..., 2].tolist() == [[0, 25, 75, 100]] * 4


@given(st.integers(0, 999), st.sampled_from([0.25, 1.0]))
def test_zoomed_image_and_labels_stay_aligned(seed: int, zoom: float) -> None:
    """Values rise smoothly from edge to edge, so that both ways of resizing say nearly the same."""
    rows, columns = np.mgrid[:200, :200]
    image = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
    view = draw_augmentation(np.random.default_rng(seed), 200, 200, 64, zoom)
    assert view.seen is not None and 64 / (1 + zoom) - 1 <= view.seen <= 64 * (1 + zoom) + 1
    for channel, labels in enumerate((rows, columns)):
        seen, truth = view.apply_to_image(image)[..., channel], view.apply_to_labels(labels.astype(np.uint8))
        assert np.abs(seen.astype(int) - truth)[2:-2, 2:-2].max() <= 2


def test_a_draw_is_row_column_and_symmetry_and_with_zoom_the_size_comes_first() -> None:
    """The same generator, asked by hand: a corner that leaves the crop inside, then one of the 8 symmetries."""
    by_hand = np.random.default_rng(3)
    top, left, symmetry = by_hand.integers(0, 90 - 32 + 1), by_hand.integers(0, 80 - 32 + 1), by_hand.integers(8)
    plain = draw_augmentation(np.random.default_rng(3), 90, 80, 32)
    assert plain == Augmentation(int(top), int(left), 32, int(symmetry), 32)
    by_hand = np.random.default_rng(3)
    seen = round(32 * 1.5 ** by_hand.uniform(-1, 1))
    top, left, symmetry = by_hand.integers(0, 90 - seen + 1), by_hand.integers(0, 80 - seen + 1), by_hand.integers(8)
    zoomed = draw_augmentation(np.random.default_rng(3), 90, 80, 32, zoom=0.5)
    assert zoomed == Augmentation(int(top), int(left), 32, int(symmetry), seen)
    assert seen != 32


def test_all_corners_symmetries_and_sizes_are_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng, 34, 33, 32) for _ in range(400)]
    assert {(one.top, one.left) for one in drawn} == {(top, left) for top in range(3) for left in range(2)}
    assert {one.symmetry for one in drawn} == set(range(8))
    # 32 / 1.5 = 21.3 and 32 * 1.5 = 48: every side from 21 to 48, and no other
    assert {draw_augmentation(rng, 90, 80, 32, 0.5).seen for _ in range(2000)} == set(range(21, 49))
    # between blocks of 8 pixels, the image's last 4 rows and columns are never the corner
    blocks = [draw_augmentation(rng, 36, 36, 16, side=8) for _ in range(200)]
    assert {(one.top, one.left) for one in blocks} == {(top, left) for top in (0, 8, 16) for left in (0, 8, 16)}


def test_jitter_changes_colors_within_bounds_and_nothing_at_zero() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    assert jitter_colors(rng, image, 0.0) is image
    changed = [jitter_colors(rng, image, 0.2).reshape(-1, 3)[0].astype(int) for _ in range(200)]
    assert len({tuple(color) for color in changed}) > 100
    # contrast moves 100 by at most 5.6, brightness by 25.6, balance by 5 %
    assert np.abs(np.array(changed) - 100).max() <= 38
    assert image.tolist() == np.full((4, 4, 3), 100).tolist()


def test_dark_colors_change_around_their_own_mean() -> None:
    """With zero 37 and unit 16: contrast moves 45 by at most 1.6, brightness by 6.4, balance by 5 % of 53."""
    image = np.full((1, 1, 3), 45, np.uint8)
    rng = np.random.default_rng(0)
    dark = replace(RGB, zero=37, unit=16.0)
    changed = np.array([jitter_colors(rng, image, 0.2, dark)[0, 0] for _ in range(200)], int)
    assert 5 < np.abs(changed - 45).max() <= 11
    assert abs(changed.mean() - 45) < 1.5
