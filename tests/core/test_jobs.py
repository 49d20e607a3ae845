"""The door into the core: what can be asked for, and how what cannot is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, get_args

import pytest

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import Cancelled, InputError, S2SRError
from s2sr_qgis.core.progress import Progress

MINIMAL: dict[str, dict[str, Any]] = {
    "create_sharpening_dataset": {"scenes": ["a.SAFE"], "output": "d"},
    "search_scenes": {"output": "s.gpkg", "area": "2,45,3,46", "start": "2022-06-15", "end": "2022-08-15"},
    "create_cross_sensor_dataset": {"xs": "xs.tif", "output": "d"},
    "simulate": {"image": "a.tif", "output": "o.tif"},
    "train": {"datasets": ["d"], "output": "run"},
    "export": {"run": "run", "output": "model"},
    "import_model": {"source": "a.hdf5", "output": "model"},
    "adapt": {"model": "sharpen_20m", "scene": "a.SAFE", "output": "model"},
    "super_resolve": {"scene": "a.SAFE", "output": "o.tif"},
    "evaluate": {"model": "sharpen_20m", "scene": "a.SAFE"},
    "similarity": {"reference": "a.tif", "image": "b.tif"},
    "check_environment": {},
}
ROOMS = {
    "create_sharpening_dataset": ("dataset.sharpening", "create_sharpening_dataset"),
    "search_scenes": ("scene.search", "search_scenes"),
    "create_cross_sensor_dataset": ("dataset.cross_sensor", "create_cross_sensor_dataset"),
    "simulate": ("dataset.simulate", "simulate"),
    "train": ("training.train", "train"),
    "export": ("training.export", "export"),
    "import_model": ("training.import_model", "import_model"),
    "adapt": ("training.adapt", "adapt"),
    "super_resolve": ("inference.super_resolve", "super_resolve"),
    "evaluate": ("inference.evaluate", "evaluate"),
    "similarity": ("similarity.compare", "compare"),
}
JOB_TYPES = get_args(get_args(jobs.Job)[0])


def test_every_job_is_covered_here() -> None:
    assert {job.model_fields["job"].default for job in JOB_TYPES} == set(MINIMAL)


@pytest.mark.parametrize("name", MINIMAL)
def test_a_job_survives_json(name: str) -> None:
    job = jobs.parse({"job": name, **MINIMAL[name]})
    assert job.job == name
    assert jobs.parse(json.loads(job.model_dump_json())) == job


@pytest.mark.parametrize("job_type", [*JOB_TYPES, jobs.SceneOptions])
def test_every_field_says_what_it_is(job_type: type[jobs.Job]) -> None:
    silent = [name for name, field in job_type.model_fields.items() if name != "job" and not field.description]
    assert not silent


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ["job"]),
        ({"job": "sing"}, ["job", "sing", "train"]),
        ({"job": "train", "output": "r"}, ["datasets", "required"]),
        ({"job": "train", "datasets": [], "output": "r"}, ["datasets"]),
        ({"job": "train", "datasets": ["d"], "output": "r", "epochs": 0}, ["epochs", "got 0", "greater"]),
        ({"job": "train", "datasets": ["d"], "output": "r", "epoch": 3}, ["epoch", "not permitted"]),
        ({"job": "super_resolve", "scene": "s", "output": "o", "device": "abacus"}, ["device", "abacus", "cpu"]),
        (
            {"job": "super_resolve", "scene": "s", "output": "o", "scene_options": {"quantification": -1}},
            ["scene_options.quantification", "greater"],
        ),
    ],
)
def test_a_wrong_job_is_one_sentence(data: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        jobs.parse(data)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert all(word in text for word in words), text


@pytest.mark.parametrize("name", ROOMS)
def test_run_opens_the_room_of_the_job(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function = ROOMS[name]
    room = types.ModuleType(module)
    calls: list[tuple[Any, Any]] = []

    def work(job: Any, progress: Any) -> dict[str, Any]:
        calls.append((job, progress))
        return {"done": name}

    setattr(room, function, work)
    monkeypatch.setitem(sys.modules, f"s2sr_qgis.core.{module}", room)
    job, progress = jobs.parse({"job": name, **MINIMAL[name]}), Progress()
    assert jobs.run(job, progress) == {"done": name}
    ((asked, once),) = calls
    assert (asked, once.whole) == (job, progress)


def test_check_raises_when_the_user_asked_to_stop() -> None:
    class Stopped(Progress):
        def cancelled(self) -> bool:
            return True

    Progress().check()
    with pytest.raises(Cancelled):
        Stopped().check()


def test_every_error_has_its_own_kind() -> None:
    kinds = [S2SRError.kind, *(error.kind for error in S2SRError.__subclasses__())]
    assert len(kinds) == len(set(kinds)) > 5


def test_importing_the_door_is_cheap() -> None:
    """The plugin's worker and `s2sr --help` wait for this import."""
    code = "import sys, s2sr_qgis.core.jobs; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    heavy = {"numpy", "scipy", "rasterio", "onnxruntime", "tensorflow", "keras", "skimage", "matplotlib", "qgis"}
    assert not heavy & set(done.stdout.split())
