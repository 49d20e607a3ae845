"""What 'Image similarity' asks the worker for, what it gives to models, what it refuses, and how its map looks."""

from __future__ import annotations

import ast
import fcntl

import pytest
from qgis.core import NULL, QgsProject, QgsRasterLayer
from test_algorithms import ROOT, algorithm, job_fields, refusal, run
from test_style import write_image

NAME = "imagesimilarity"


@pytest.fixture
def images(tmp_path) -> tuple[str, str, str]:
    """Reference, image, mask."""
    return tuple(str(write_image(tmp_path / f"{name}.tif", ("B02", "B03"))) for name in ("ref", "img", "mask"))


def outputs(**figures: float) -> dict:
    entries = {name: {"title": name.upper(), "total": value, "bands": None, "unit": ""}
               for name, value in figures.items()}  # fmt: skip
    return {"measures": entries, **figures, "data_range": 10000, "pixels": 5}


def measure_names() -> list[str]:
    """The words of the job's type, read from its source."""
    tree = ast.parse((ROOT / "s2sr_qgis" / "core" / "jobs.py").read_text())
    value = next(node.value for node in tree.body if isinstance(node, ast.Assign)
                 and node.targets[0].id == "MeasureName")  # fmt: skip
    return [element.value for element in value.slice.elts]


def test_the_job(provider, worker, feedback, images, tmp_path) -> None:
    reference, image, mask = images
    worker.behave("ok", outputs(rmse=12.5, ssim=0.99))
    files = {"OUTPUT_JSON": str(tmp_path / "f.json"), "OUTPUT_HTML": str(tmp_path / "f.html"),
             "OUTPUT": str(tmp_path / "map.tif")}  # fmt: skip
    results = run(NAME, {
        "REFERENCE": reference, "IMAGE": image, "MEASURES": ["rmse", "ssim"], "DEFINITION": "up42", "BANDS": "B02, 2",
        "RESAMPLE": "bicubic", "MASK": mask, "SOURCE": str(tmp_path), "CONSISTENCY": False, "RATIO": 2, "NODATA": -1,
        "DATA_RANGE": 4095, "THREADS": 3, "MAP_MEASURE": "sam", **files,
    }, feedback)  # fmt: skip
    assert worker.job() == {
        "job": "similarity", "reference": reference, "image": image, "measures": ["rmse", "ssim"],
        "definition": "up42", "bands": ["B02", "2"], "resample": "bicubic", "mask": mask, "source": str(tmp_path),
        "consistency": False, "ratio": 2, "nodata": -1, "data_range": 4095, "threads": 3, "map_measure": "sam",
        "json_file": files["OUTPUT_JSON"], "report": files["OUTPUT_HTML"], "map": files["OUTPUT"],
    }  # fmt: skip
    assert set(worker.job()) == job_fields("SimilarityJob"), "every feature of the job is offered"
    assert {name: results[name] for name in files} == files
    assert (results["RMSE"], results["SSIM"], results["PSNR"]) == (12.5, 0.99, None)
    assert (results["DATA_RANGE_USED"], results["PIXELS"]) == (10000, 5)
    assert "RMSE: 12.5 " in feedback.said["info"]


def test_what_is_not_given_is_left_to_the_job(provider, worker, images) -> None:
    worker.behave("ok", outputs(rmse=0, psnr=None))
    results = run(NAME, {"REFERENCE": images[0], "IMAGE": images[1], "MASK": NULL, "BANDS": NULL, "SOURCE": NULL})
    assert worker.job() == {
        "job": "similarity", "reference": images[0], "image": images[1], "consistency": False, "ratio": 1,
        "definition": "reference", "resample": "none", "map_measure": "uiq",
    }  # fmt: skip
    assert (results["RMSE"], results["PSNR"], results["OUTPUT"], results["OUTPUT_JSON"]) == (0, None, None, None)


def test_consistency_compares_with_the_source(provider, worker, images, tmp_path) -> None:
    run(NAME, {"IMAGE": images[1], "SOURCE": str(tmp_path), "CONSISTENCY": True})
    assert (worker.job()["reference"], worker.job()["consistency"]) == (str(tmp_path), True)
    assert "source" not in worker.job()
    run(NAME, {"IMAGE": images[1], "REFERENCE": images[0], "CONSISTENCY": True})
    assert worker.job()["reference"] == images[0]


def test_every_measure_can_be_chosen_and_is_a_number_to_branch_on(provider) -> None:
    found = algorithm(NAME)
    names = measure_names()
    assert found.parameterDefinition("MEASURES").options() == names
    numbers = {output.name() for output in found.outputDefinitions() if output.type() == "outputNumber"}
    assert numbers == {name.upper() for name in names} | {"DATA_RANGE_USED", "PIXELS"}


def test_a_layer_of_the_project_is_its_file(provider, worker, qgis_new_project, images) -> None:
    layer = QgsRasterLayer(images[0], "a layer")
    QgsProject.instance().addMapLayer(layer)
    run(NAME, {"REFERENCE": "a layer", "IMAGE": images[1] + "|option:NUM_THREADS=2"})
    assert (worker.job()["reference"], worker.job()["image"]) == (images[0], images[1])


def test_it_refuses(provider, context, images, tmp_path) -> None:
    good = {"REFERENCE": images[0], "IMAGE": images[1]}
    assert algorithm(NAME).checkParameterValues(good, context)[0]
    assert "no image at /no/a.tif" in refusal(NAME, {**good, "REFERENCE": "/no/a.tif"}, context)
    assert "no image at /no/m.tif" in refusal(NAME, {**good, "MASK": "/no/m.tif"}, context)
    assert "no scene at /no" in refusal(NAME, {**good, "SOURCE": "/no"}, context)
    assert refusal(NAME, {"IMAGE": images[1]}, context) == "Choose a reference to compare with."
    assert "needs the source" in refusal(NAME, {"IMAGE": images[1], "CONSISTENCY": True}, context)
    assert "MEASURES" in refusal(NAME, {**good, "MEASURES": ["beauty"]}, context)
    assert "DATA_RANGE" in refusal(NAME, {**good, "DATA_RANGE": 0}, context)
    for output in ("OUTPUT_JSON", "OUTPUT_HTML", "OUTPUT"):
        assert "/no/folder does not exist" in refusal(NAME, {**good, output: "/no/folder/f.tif"}, context)
    assert "must end in .tif" in refusal(NAME, {**good, "OUTPUT": str(tmp_path / "map.png")}, context)


@pytest.mark.parametrize(("measure", "low", "high", "at_low"), [("uiq", 0, 1, "#440154"), ("sam", 0, 1979, "#fde725")])
def test_a_map_is_coloured_from_bad_to_good(qgis_app, tmp_path, measure, low, high, at_low) -> None:
    from s2sr_qgis.algorithms.style import style_measure

    layer = QgsRasterLayer(str(write_image(tmp_path / "m.tif", ("UIQ",))), "x")
    style_measure(layer, measure)
    renderer = layer.renderer()
    assert renderer.type() == "singlebandpseudocolor"
    assert (renderer.classificationMin(), renderer.classificationMax()) == (low, pytest.approx(high, abs=3))
    items = renderer.shader().rasterShaderFunction().colorRampItemList()
    assert [item.value for item in items] == sorted(item.value for item in items)
    assert len(items) == 9
    assert items[0].color.name() == at_low


def test_the_loaded_map_is_named_and_styled(provider, worker, qgis_new_project, images) -> None:
    import processing

    worker.behave("ok", outputs(uiq=0.9))
    processing.runAndLoadResults("s2sr:imagesimilarity", {
        "REFERENCE": images[0], "IMAGE": images[1], "OUTPUT": images[2],
    })  # fmt: skip
    (layer,) = QgsProject.instance().mapLayers().values()
    assert layer.name() == "UIQ img"
    assert layer.renderer().type() == "singlebandpseudocolor"


def test_a_worker_that_was_killed_leaves_nothing(provider, worker, images, tmp_path) -> None:
    from s2sr_qgis.runner.job import _sweep

    jobs = {name: str(tmp_path / f"o.{name}") for name in ("report", "map", "json_file")}
    for name in (*jobs, "other"):
        (tmp_path / f".o.{name}-0123abcd.part").mkdir()
        (tmp_path / f".o.{name}-0123abcd.part" / "lock").write_bytes(b"")
    living = tmp_path / ".o.map-89abcdef.part" / "lock"
    living.parent.mkdir()
    with living.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep({"job": "similarity", "reference": images[0], **jobs})
        names = sorted(path.name for path in tmp_path.glob(".o.*"))
    # What a living process writes, and what another job with the same stem left, is not this job's.
    assert names == [".o.map-89abcdef.part", ".o.other-0123abcd.part"]
