"""Stages side by side: order, bounds, errors of every stage, cancelling; and the same file whatever the threads."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing

import numpy as np
import pytest
import rasterio
from tiny_model import scene_numbers, tiny_model, write_scene

from s2sr_qgis.core.errors import Cancelled, InputError, ModelError, OutputError
from s2sr_qgis.core.inference.model import Model
from s2sr_qgis.core.inference.pipeline import AHEAD, Profile, ordered
from s2sr_qgis.core.inference.tile_size import BLOCK, CACHE, block_cache, block_side, cache_of_worker
from s2sr_qgis.core.jobs import SuperResolveJob, run
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.writer import RasterWriter
from s2sr_qgis.core.scene.files import FilePool


def alive() -> set[str]:
    return {t.name.partition("_")[0] for t in threading.enumerate()} & {"draw", "work", "decode"}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers):
    def slow_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * 2

    with closing(ordered(range(40), slow_first, workers)) as stream:
        assert list(stream) == [number * 2 for number in range(40)]
    assert not alive()


def test_no_more_is_drawn_than_the_bound():
    drawn = []

    def items():
        for number in range(30):
            drawn.append(number)
            yield number

    with closing(ordered(items(), lambda number: number, 3)) as stream:
        for number in stream:
            time.sleep(0.005)
            # The one in hand, and those that may be underway beside it.
            assert len(drawn) <= number + 3 + AHEAD
    assert len(drawn) == 30


def test_nothing_to_do():
    assert list(ordered([], lambda item: item, 2)) == []


@pytest.mark.parametrize("stage", ["source", "work", "taker"])
def test_an_error_of_any_stage_surfaces_as_it_is(stage):
    error = InputError("a sentence for the user")

    def items():
        for number in range(20):
            if stage == "source" and number == 5:
                raise error
            yield number

    def work(number):
        if stage == "work" and number == 5:
            raise error
        return number

    taken = []

    def take():
        with closing(ordered(items(), work, 2)) as stream:
            for number in stream:
                taken.append(number)
                if stage == "taker" and number == 4:
                    raise error

    with pytest.raises(InputError) as caught:
        take()
    assert caught.value is error
    assert taken == [0, 1, 2, 3, 4]  # what came before the error was given
    assert not alive()


def test_waiting_is_interrupted():
    gate, asked = threading.Event(), threading.Event()

    def check():
        asked.set()
        gate.set()  # what is in work may end; nothing more is begun
        raise Cancelled("stop")

    begun = []

    def work(number):
        begun.append(number)
        gate.wait(10)

    with pytest.raises(Cancelled), closing(ordered(range(50), work, 2, check)) as stream:
        next(stream)
    assert asked.is_set()
    assert len(begun) <= 2 + AHEAD
    assert not alive()


def test_profile_counts_by_stage():
    profile = Profile()

    def busy(_):
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    list(map(profile.measured("work", busy), profile.drawn("draw", range(3))))
    assert profile.seconds["work"] >= 0.06
    assert 0 <= profile.seconds["draw"] < 0.06


# The job


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [str(tiny_model(folder / "tiny_20m")), str(tiny_model(folder / "tiny_60m", "60m"))]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    numbers = scene_numbers()
    numbers["B05"][30:41, 20:33] = 0
    numbers["B02"][:37] = 0
    numbers["B12"][:, :50] = 0
    return write_scene(tmp_path_factory.mktemp("scenes") / "holes", numbers)


def sharpen(scene, output, models, progress=None, **options):
    job = SuperResolveJob(
        scene=str(scene),
        output=output,
        models=models,
        scene_options={"processing_level": "L2A", "radiometric_offset": 0},
        **{"device": "cpu", "threads": 2, "tile_size": 60, **options},
    )
    return run(job, progress)


@pytest.mark.parametrize("consistency", [0, 1])
def test_the_same_file_whatever_the_threads(scene, models, tmp_path, consistency):
    found = {}
    for threads in (1, 2, 5):
        path = tmp_path / f"{threads}.tif"
        result = sharpen(scene, path, models, threads=threads, data_type="float32", consistency=consistency)
        with rasterio.open(path) as dataset:
            found[threads] = dataset.read(), dataset.read(out_shape=(12, 60, 60)), result.get("residual")
    for threads in (2, 5):
        np.testing.assert_array_equal(found[threads][0], found[1][0])
        np.testing.assert_array_equal(found[threads][1], found[1][1])
        assert found[threads][2] == found[1][2]


def failing(original, error, after):
    """A method that fails from its ``after``-th call on."""
    calls = []
    lock = threading.Lock()

    def method(*arguments, **options):
        with lock:
            calls.append(1)
            late = len(calls) >= after
        if late:
            raise error
        return original(*arguments, **options)

    return method


@pytest.mark.parametrize(
    ("owner", "name", "error", "after"),
    [
        (FilePool, "read", InputError("B11 cannot be read"), 14),
        (Model, "infer", ModelError("the network failed"), 5),
        (RasterWriter, "write", OutputError("the disk is full"), 3),
        (Model, "infer", MemoryError(), 1),
    ],
)
def test_an_error_leaves_nothing_behind(scene, models, tmp_path, monkeypatch, owner, name, error, after):
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), error, after))
    with pytest.raises(type(error)) as caught:
        sharpen(scene, tmp_path / "out.tif", models)
    assert caught.value is error
    assert os.listdir(tmp_path) == []
    assert not alive()


def test_cancelling_while_files_are_decoded(scene, models, tmp_path, monkeypatch):
    class Stop(Progress):
        asked = False

        def cancelled(self):
            return self.asked

    progress, original = Stop(), FilePool.read

    def read(*arguments, **options):
        progress.asked = True
        return original(*arguments, **options)

    monkeypatch.setattr(FilePool, "read", read)
    with pytest.raises(Cancelled):
        sharpen(scene, tmp_path / "out.tif", models, progress)
    assert os.listdir(tmp_path) == []
    assert not alive()


# How large tiles are


class Log(Progress):
    def __init__(self):
        self.text = ""

    def log(self, text, level="info"):
        self.text += text


def planned(scene, models, tmp_path, **options):
    log = Log()
    sharpen(scene, tmp_path / "out.tif", models, log, **{"tile_size": None, **options})
    words = log.text.split("tiles of ")[1].split()
    return int(words[0]), int(words[2])


def test_threads_share_a_small_area(scene, models, tmp_path):
    alone, shared = (planned(scene, models, tmp_path, threads=threads)[0] for threads in (1, 4))
    assert alone == 240
    assert shared <= 120


def test_memory_bounds_tiles_and_workers(scene, models, tmp_path):
    assert planned(scene, models, tmp_path, threads=4, memory=200) == (60, 1)
    assert planned(scene, models, tmp_path, threads=4, memory=4000)[1] == 4


def test_a_given_size_is_taken_to_the_next_whole_unit(scene, models, tmp_path):
    assert planned(scene, models, tmp_path, tile_size=61)[0] == 66


def test_inner_tiles_fit_tiles():
    assert block_side(480) == 480
    assert block_side(576) == 288
    assert block_side(102) is None
    assert block_cache(480, 10**6) == CACHE * 2**20
    assert block_cache(102, 10**6) == CACHE * 2**20 + 2 * BLOCK * 10**6


@pytest.mark.parametrize("listed", ["0-3", "0,2", "0"])
def test_cache_of_the_processor(monkeypatch, tmp_path, listed):
    for number, (level, size, sharing) in enumerate([("1", "32K", "0"), ("2", "1024K", "0"), ("3", "8192K", listed)]):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("size", size), ("shared_cpu_list", sharing)):
            (folder / name).write_text(text + "\n")
    monkeypatch.setattr("s2sr_qgis.core.inference.tile_size._CACHES", tmp_path)
    cache_of_worker.cache_clear()
    shared = {"0-3": 4, "0,2": 2, "0": 1}[listed]
    assert cache_of_worker(2) == (1 + 8 / min(shared, 2)) * 2**20
    assert cache_of_worker(16) == (1 + 8 / shared) * 2**20
    cache_of_worker.cache_clear()


def test_unknown_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("s2sr_qgis.core.inference.tile_size._CACHES", tmp_path / "nothing")
    cache_of_worker.cache_clear()
    assert cache_of_worker(2) == 4 * 2**20
    cache_of_worker.cache_clear()
