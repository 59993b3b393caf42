import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skystill.symmetry import SYMMETRIES, transform, transform_back
from skystill.train.batches.augment import Augmentation, draw_augmentation, jitter_colors

symmetries = st.integers(0, SYMMETRIES - 1)


@given(symmetries, st.integers(1, 6), st.integers(1, 6))
def test_what_goes_through_a_symmetry_comes_back(symmetry: int, height: int, width: int) -> None:
    array = np.arange(height * width * 3).reshape(height, width, 3)
    assert np.array_equal(transform_back(transform(array, symmetry), symmetry), array)


def test_the_eight_symmetries_differ() -> None:
    square = np.arange(9).reshape(3, 3)
    assert len({transform(square, s).tobytes() for s in range(SYMMETRIES)}) == SYMMETRIES


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
        view.apply_to_mask(np.ones((height, width), bool)),
    )
    assert cut.shape == (size, size, 3)
    expected = (cut[..., 0].astype(int) * 7 + cut[..., 1].astype(int) * 3) % 250
    assert np.array_equal(truth[inside], expected[inside])
    assert (truth[~inside] == 255).all()
    assert inside.sum() == min(size, height) * min(size, width)


def test_a_view_by_hand() -> None:
    labels = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
    assert Augmentation(0, 1, 2).apply_to_labels(labels).tolist() == [[2, 3], [5, 6]]
    assert Augmentation(0, 1, 2, symmetry=1).apply_to_labels(labels).tolist() == [
        [3, 6],
        [2, 5],
    ]  # a quarter turn to the left
    assert Augmentation(0, 1, 2, symmetry=4).apply_to_labels(labels).tolist() == [[3, 2], [6, 5]]  # mirrored
    assert Augmentation(2, 2, 2).apply_to_labels(labels).tolist() == [[9, 255], [255, 255]]


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
    found, there = view.apply_to_logits(kept, side), view.apply_to_mask(np.ones((height, width), bool))
    seen = view.apply_to_logits(pixels, 1).reshape(blocks, side, blocks, side, 2).mean((1, 3))
    whole = there.reshape(blocks, side, blocks, side).all((1, 3))
    assert found.shape == (blocks, blocks, 2)
    assert np.allclose(found[whole], seen[whole])


def test_a_zoomed_view_by_hand() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert Augmentation(0, 0, 2, seen=4).apply_to_labels(labels).tolist() == [[5, 7], [13, 15]]
    assert Augmentation(1, 1, 4, seen=2).apply_to_labels(labels).tolist() == [[5, 5, 6, 6]] * 2 + [[9, 9, 10, 10]] * 2
    assert (
        Augmentation(3, 3, 4, seen=2).apply_to_mask(labels < 99).tolist()
        == [[True, True, False, False]] * 2 + [[False] * 4] * 2
    )
    grey = np.stack([np.full((4, 4), 90, np.uint8)] * 3, axis=-1)
    assert (Augmentation(0, 0, 6, seen=3).apply_to_image(grey) == 90).all()


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


def test_no_zoom_draws_what_it_always_drew() -> None:
    plain, zoomed = (draw_augmentation(np.random.default_rng(3), 90, 80, 32, zoom) for zoom in (0.0, 0.5))
    assert plain == Augmentation(plain.top, plain.left, 32, plain.symmetry, 32)
    assert (plain.seen, zoomed.seen) != (32, 32)


def test_jitter_changes_colors_within_bounds_and_nothing_at_zero() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    assert jitter_colors(rng, image, 0.0) is image
    changed = [jitter_colors(rng, image, 0.2).reshape(-1, 3)[0].astype(int) for _ in range(200)]
    assert len({tuple(color) for color in changed}) > 100
    # contrast moves 100 by at most 5.6, brightness by 25.6, balance by 5 %
    assert np.abs(np.array(changed) - 100).max() <= 38
    assert image.tolist() == np.full((4, 4, 3), 100).tolist()
