"""Random views: each change alone against NumPy, black background, ranges, reproducible draws."""

import numpy as np
import pytest
import torch

from pipeline.images.views import ViewParameters, draw_noise, draw_views
from pipeline.settings import Views
from pipeline.training.seeds import generator

HEIGHT, WIDTH = 32, 64
OFF = dict.fromkeys(Views.model_fields, 0) | {"view_crop": 1, "view_flip": False}


def images(count=3):
    drawn = torch.randint(0, 256, (count, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator(0, "images"))
    drawn[:, :, :8] = 0  # background
    return drawn


def no_noise():
    return torch.zeros(2 * HEIGHT, WIDTH)


def parameters(count=3, **changed):
    """Parameters that change nothing, but for those in `changed`, one value for all images."""
    neutral = {"crop_side": 1, "gain": 1, "gamma": 1, "shadow_width": 1}
    fields = [name.removesuffix("_M") for name in ViewParameters.__dataclass_fields__]
    values = {name: torch.full((count,), float(changed.get(name, neutral.get(name, 0)))) for name in fields}
    values |= {"flip": values["flip"].bool(), "noise_row": values["noise_row"].long()}
    return ViewParameters(**{f"{name}_M": value for name, value in values.items()})


def grey():
    return images().numpy().astype(np.float64)


def rows_and_columns():
    """Depth and place of the pixels' centres, as shares of the sides."""
    return ((np.arange(HEIGHT) + 0.5) / HEIGHT)[:, None], (np.arange(WIDTH) + 0.5) / WIDTH


def sampled(line, places):
    """Linear interpolation of `line` at pixel coordinates `places`, the outermost values beyond the ends."""
    return np.interp(places, np.arange(len(line)), line)


def test_without_changes_a_view_is_the_image():
    views = draw_views(3, HEIGHT, Views(**OFF), generator(1)).apply(images(), draw_noise(HEIGHT, WIDTH, generator(2)))
    assert views.dtype == torch.float32
    np.testing.assert_allclose(views, grey(), atol=1e-3)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("left", "top"), [(0.25, 0.125), (0.5, 0.5), (0, 0)])
def test_a_crop_is_enlarged_to_the_whole_size_and_then_flipped(flip, left, top):
    views = parameters(crop_side=0.5, crop_left=left, crop_top=top, flip=flip).apply(images(), no_noise())
    down, across = rows_and_columns()
    y, x = (top + 0.5 * down[:, 0]) * HEIGHT - 0.5, (left + 0.5 * across) * WIDTH - 0.5
    for view, image in zip(views.numpy(), grey(), strict=True):
        rows = np.stack([sampled(column, y) for column in image.T], axis=1)
        expected = np.stack([sampled(row, x) for row in rows])
        np.testing.assert_allclose(view, expected[:, ::-1] if flip else expected, atol=1e-2)


def test_a_flip_turns_left_and_right_and_never_depth():
    np.testing.assert_allclose(parameters(flip=1).apply(images(), no_noise()), grey()[:, :, ::-1], atol=1e-3)


def test_gain_multiplies_and_white_stays_the_brightest():
    views = parameters(gain=1.25).apply(images(), no_noise())
    np.testing.assert_allclose(views, np.minimum(1.25 * grey(), 255), atol=1e-3)


def test_depth_gain_darkens_above_as_it_brightens_below():
    views = parameters(depth_gain=0.2).apply(images(), no_noise())
    down, _ = rows_and_columns()
    np.testing.assert_allclose(views, np.minimum(grey() * (1 + 0.2 * (2 * down - 1)), 255), atol=1e-3)


def test_gamma_is_the_power_of_levels_between_black_and_white():
    views = parameters(gamma=1.4).apply(images(), no_noise())
    np.testing.assert_allclose(views, 255 * (grey() / 255) ** 1.4, atol=1e-3)


def test_speckle_multiplies_by_the_rows_of_the_strip_from_the_drawn_one_on():
    noise = draw_noise(HEIGHT, WIDTH, generator(3))
    views = parameters(speckle=0.1, noise_row=7).apply(images(), noise)
    factor = 1 + 0.1 * noise.numpy().astype(np.float64)[7 : 7 + HEIGHT]
    np.testing.assert_allclose(views, np.clip(grey() * factor, 0, 255), atol=1e-3)


def test_noise_has_unit_variance_and_is_shared_by_neighbours_across_the_beam_only():
    noise = draw_noise(HEIGHT, WIDTH, generator(4)).numpy()
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert np.mean(noise[:, 1:] * noise[:, :-1]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(noise[1:] * noise[:-1]) == pytest.approx(0, abs=0.03)


def test_a_shadow_darkens_diverging_beams_below_its_top_by_its_strength():
    shadow = {"strength": 0.8, "top": 0.25, "centre": 0.75, "width": 0.2, "spread": 0.5}
    views = parameters(**{f"shadow_{name}": value for name, value in shadow.items()}).apply(images(), no_noise())
    ratio = (views.numpy() / np.maximum(grey(), 1))[grey() > 0]
    down, across = rows_and_columns()
    spread = 1 + 0.5 * np.maximum(down - 0.25, 0)
    off_axis = np.abs((across - 0.5) - 0.25 * spread) - 0.1 * spread  # below 0 between the beams
    edge = 0.03 + 1e-6
    full = np.broadcast_to((off_axis <= -edge) & (down >= 0.25 + edge), grey().shape)[grey() > 0]
    none = np.broadcast_to((off_axis >= 0) | (down <= 0.25), grey().shape)[grey() > 0]
    assert full.sum() > 100 and none.sum() > 100
    np.testing.assert_allclose(ratio[full], 0.2, atol=1e-5)
    np.testing.assert_allclose(ratio[none], 1, atol=1e-5)
    assert ((ratio > 0.199) & (ratio < 1.001)).all(), "edges are between"


def test_black_stays_black_and_grey_levels_keep_their_range():
    drawn = draw_views(64, HEIGHT, Views(view_shadow=1), generator(5))
    noise = draw_noise(HEIGHT, WIDTH, generator(6))
    assert not drawn.apply(torch.zeros(64, HEIGHT, WIDTH, dtype=torch.uint8), noise).any()
    views = drawn.apply(torch.full((64, HEIGHT, WIDTH), 255, dtype=torch.uint8), noise)
    assert views.min() >= 0 and views.max() <= 255.001
    whole = draw_views(3, HEIGHT, Views(view_crop=1, view_flip=False), generator(7)).apply(images(), noise)
    assert not whole[:, :, :8].any() and whole[:, :, 8:].any()


def test_draws_stay_within_the_ranges_and_reach_both_ends():
    drawn = draw_views(4000, HEIGHT, Views(view_crop=0.25, view_gamma=1, view_shadow=0.4), generator(8))
    ends = {
        "crop_side_M": (0.5, 1),
        "gain_M": (0.7, 1.3),
        "depth_gain_M": (-0.3, 0.3),
        "gamma_M": (0.5, 2),
        "speckle_M": (0, 0.15),
    }
    for name, (low, high) in ends.items():
        values = getattr(drawn, name)
        assert low - 1e-6 <= values.min() < low + 0.02 * (high - low), name
        assert high - 0.02 * (high - low) < values.max() <= high + 1e-6, name
    assert (drawn.crop_left_M + drawn.crop_side_M).max() <= 1 + 1e-6
    assert (drawn.crop_top_M + drawn.crop_side_M).max() <= 1 + 1e-6
    assert 0.45 < drawn.flip_M.float().mean() < 0.55
    assert 0.36 < (drawn.shadow_strength_M > 0).float().mean() < 0.44
    assert drawn.noise_row_M.max() + HEIGHT < len(draw_noise(HEIGHT, WIDTH, generator(9)))


@pytest.mark.parametrize("name", Views.model_fields)
def test_each_change_can_be_switched_off_alone(name):
    noise = draw_noise(HEIGHT, WIDTH, generator(10))
    only = {**OFF, name: 1 if name == "view_shadow" else getattr(Views(), name)}
    changed = draw_views(8, HEIGHT, Views(**only), generator(11)).apply(images(8), noise)
    assert not torch.allclose(changed, images(8).float(), atol=1)
    off = draw_views(8, HEIGHT, Views(**{**only, name: OFF[name]}), generator(11)).apply(images(8), noise)
    np.testing.assert_allclose(off, images(8), atol=1e-3)


def test_every_image_has_changes_of_its_own_whatever_the_batches():
    drawn, noise = draw_views(6, HEIGHT, Views(), generator(12)), draw_noise(HEIGHT, WIDTH, generator(13))
    same = images(1).expand(6, HEIGHT, WIDTH)
    whole = drawn.apply(same, noise)
    parts = [part.apply(same[:2], noise) for part in drawn.batches(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert len({view.numpy().tobytes() for view in whole}) == 6
