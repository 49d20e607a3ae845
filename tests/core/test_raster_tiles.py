import numpy as np
import pytest

from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.raster.tiles import crop, fill, mirrored, snapped, tiles


@pytest.mark.parametrize(("size", "halo", "multiple"), [(30, 7, 6), (48, 0, 2), (500, 12, 12), (17, 5, 4)])
def test_tiles_cover_an_area_once(size, halo, multiple):
    area = Window(6, 12, 101, 66)
    count = np.zeros((100, 120), int)
    for tile in tiles(area, size, halo, multiple):
        core, padded = tile.core, tile.padded
        count[core.row : core.row + core.height, core.col : core.col + core.width] += 1
        assert not any(value % multiple for value in (padded.col, padded.row, padded.width, padded.height))
        assert padded.col <= core.col - halo
        assert padded.row <= core.row - halo
        assert padded.col + padded.width >= core.col + core.width + halo
        assert padded.row + padded.height >= core.row + core.height + halo
    inside = np.zeros_like(count)
    inside[12:78, 6:107] = 1
    np.testing.assert_array_equal(count, inside)


def test_snapped_goes_outwards():
    assert snapped(Window(-5, 7, 10, 1), 6) == Window(-6, 6, 12, 6)
    assert snapped(Window(6, 12, 6, 18), 6) == Window(6, 12, 6, 18)


def test_the_mirror_image_of_a_coarse_band_is_that_of_the_ground():
    fine = np.random.default_rng(0).random((24, 36), np.float32)
    coarse = fine.reshape(4, 6, 6, 6).mean(axis=(1, 3))
    have, want = Window(0, 0, 36, 24), Window(-12, -6, 60, 42)
    ground = mirrored(fine, have, want).reshape(7, 6, 10, 6).mean(axis=(1, 3))
    np.testing.assert_allclose(mirrored(coarse, have.scaled(6), want.scaled(6)), ground, rtol=1e-6)


def test_mirroring_may_exceed_the_image():
    image = np.arange(4, dtype=np.float32).reshape(1, 4)
    result = mirrored(image, Window(0, 0, 4, 1), Window(-6, 0, 10, 1))
    np.testing.assert_array_equal(result, [[2, 3, 3, 2, 1, 0, 0, 1, 2, 3]])


def test_fill_takes_the_nearest_within_reach():
    image = np.array([[5, 0, 0, 0, 0, 0, 7]], np.float32)
    valid = image > 0
    np.testing.assert_array_equal(fill(image, valid, 2), [[5, 5, 5, 0, 7, 7, 7]])
    assert not fill(image, np.zeros_like(valid), 2).any()
    assert fill(image, np.ones_like(valid), 2) is image


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_fill_does_not_depend_on_how_the_image_was_cut(share):
    rng = np.random.default_rng(1)
    image, valid = rng.random((150, 170), np.float32), rng.random((150, 170)) < share
    whole, reach = Window(0, 0, 170, 150), 12
    filled = fill(image, valid, reach)
    for want in (Window(0, 0, 40, 30), Window(61, 47, 33, 50), Window(120, 90, 50, 60)):
        around = want.grown(reach).clipped(170, 150)
        part = fill(crop(image, whole, around), crop(valid, whole, around), reach)
        np.testing.assert_array_equal(crop(part, around, want), crop(filled, whole, want))
