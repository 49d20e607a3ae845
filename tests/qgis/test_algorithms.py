"""What the algorithms declare, refuse and ask the worker for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from qgis.core import (
    NULL,
    QgsApplication,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
)

ROOT = Path(__file__).resolve().parents[2]
IDS = (
    "searchscenes",
    "createsharpeningdataset",
    "createcrosssensordataset",
    "simulatescene",
    "trainmodel",
    "importmodel",
    "superresolve",
    "evaluatemodel",
    "imagesimilarity",
    "setupenvironment",
    "checkenvironment",
)
WORKFLOW = "Cross-sensor super-resolution"
"""A processing model; it keeps the name that the modeler shows."""

KEPT = []
"""Parameters belong to their algorithm, which Python must therefore hold as long as them."""


def algorithm(name: str):
    KEPT.append(QgsApplication.processingRegistry().createAlgorithmById(f"s2sr:{name}"))
    return KEPT[-1]


def job_fields(title: str) -> set[str]:
    """The fields of a job, read from its source: pydantic is not installed beside QGIS."""
    tree = ast.parse((ROOT / "s2sr_qgis" / "core" / "jobs.py").read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == title)
    return {node.target.id for node in body if isinstance(node, ast.AnnAssign)}


@pytest.fixture
def scene(tmp_path) -> str:
    folder = tmp_path / "S2A_MSIL2A_20250601T100031_N0511_R122_T33UUB_20250601T120000.SAFE"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def model(tmp_path) -> str:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "card.yaml").write_text("name: x")
    return str(tmp_path / "model")


@pytest.fixture
def dataset(tmp_path) -> str:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "dataset.yaml").write_text("task: 20m")
    return str(tmp_path / "dataset")


def run(name: str, parameters: dict, feedback=None):
    import processing

    return processing.run(f"s2sr:{name}", parameters, feedback=feedback)


def refusal(name: str, parameters: dict, context) -> str:
    accepted, sentence = algorithm(name).checkParameterValues(parameters, context)
    assert not accepted
    return sentence


def test_the_provider(provider) -> None:
    assert sorted(found.name() for found in provider.algorithms()) == sorted([*IDS, WORKFLOW])
    assert provider.id() == "s2sr"
    assert provider.defaultRasterFileExtension() == "tif"
    assert not provider.supportsNonFileBasedOutput()
    assert not provider.icon().isNull()
    assert Path(provider.svgIconPath()).is_file()
    assert len({found.groupId() for found in provider.algorithms()}) <= 5


@pytest.mark.parametrize("name", IDS)
def test_declarations(provider, name: str) -> None:
    found = algorithm(name)
    assert re.fullmatch("[a-z]+", found.name())
    assert found.displayName()
    assert found.groupId() in {"dataset", "training", "inference", "environment"}
    assert found.shortDescription()
    assert "<" not in found.shortHelpString(), "qgis_process help would print the tags"
    assert found.helpUrl().startswith("https://")
    assert len(found.tags()) > 4
    assert type(found.create()) is type(found)


@pytest.mark.parametrize("name", IDS)
def test_parameters(provider, name: str) -> None:
    for parameter in algorithm(name).parameterDefinitions():
        assert re.fullmatch("[A-Z0-9_]+", parameter.name())
        assert parameter.description()
        assert parameter.help(), f"{parameter.name()} has no help"
        if isinstance(parameter, QgsProcessingParameterEnum):
            assert parameter.usesStaticStrings()
        if isinstance(parameter, QgsProcessingParameterNumber):
            assert abs(parameter.minimum()) < 1e9, f"{parameter.name()} has no lower bound"
            assert abs(parameter.maximum()) < 1e10, f"{parameter.name()} has no upper bound"


def test_rare_parameters_are_advanced(provider) -> None:
    advanced = QgsProcessingParameterDefinition.Flag.FlagAdvanced
    basic = [p.name() for p in algorithm("superresolve").parameterDefinitions() if not p.flags() & advanced]
    assert basic == ["INPUT", "EXTENT", "BANDS", "MODELS", "MODEL_FOLDER", "CONSISTENCY", "DATA_TYPE", "OUTPUT"]


@pytest.mark.parametrize("name", [name for name in IDS if name != "setupenvironment"])
def test_without_worker_nothing_starts(provider, monkeypatch, tmp_path, name: str) -> None:
    monkeypatch.delenv("S2SR_PYTHON", raising=False)
    monkeypatch.setenv("S2SR_HOME", str(tmp_path))
    able, sentence = algorithm(name).canExecute()
    assert not able
    assert "Set up the environment" in sentence
    assert algorithm("setupenvironment").canExecute()[0]


@pytest.mark.parametrize(
    "source", ["/a/S2A.SAFE", "/a/MTD_MSIL2A.xml", "/a/S2A.zip", "/a/stack.tif", "/a/folder", "https://stac/item?a=b"]
)
def test_one_parameter_takes_every_kind_of_scene(provider, source: str) -> None:
    for name in ("superresolve", "evaluatemodel"):
        assert algorithm(name).parameterDefinition("INPUT").checkValueIsAcceptable(source)


def test_superresolve_asks_for_what_the_user_chose(provider, worker, feedback, scene, model, tmp_path) -> None:
    worker.behave("ok", {"output": "ignored", "scene": "S2A_T33UUB"})
    output = str(tmp_path / "out.tif")
    results = run(
        "superresolve",
        {
            "INPUT": scene, "EXTENT": "500000,500500.5,4799500,4800000 [EPSG:32631]", "BANDS": ["B05", "B8A"],
            "MODEL_FOLDER": model, "CONSISTENCY": 2, "DATA_TYPE": "float32", "FORMAT": "cog", "COMPRESSION": "zstd",
            "DEVICE": "cpu", "THREADS": 3, "PRECISION": "float32", "MEMORY": 900, "TILE_SIZE": 480, "ADAPT": 2.5,
            "ALLOW_OTHER_LEVEL": True, "ENGINE": "native", "BAND_NAMES": "B02, B03 ,B04", "PROCESSING_LEVEL": "L2A",
            "RADIOMETRIC_OFFSET": -1000, "QUANTIFICATION": 5000.5, "OUTPUT": output,
        },
        feedback,
    )  # fmt: skip
    assert results == {"OUTPUT": output, "SCENE": "S2A_T33UUB"}
    assert worker.job() == {
        "job": "super_resolve", "scene": scene, "output": output, "models": [model], "bands": ["B05", "B8A"],
        "roi": "500000.0,4799500.0,500500.5,4800000.0 EPSG:32631", "consistency": 2, "data_type": "float32",
        "format": "cog", "compression": "zstd", "device": "cpu", "threads": 3, "precision": "float32", "memory": 900,
        "tile_size": 480, "adapt": 2.5, "allow_other_level": True, "engine": "native",
        "scene_options": {"band_names": ["B02", "B03", "B04"], "processing_level": "L2A", "radiometric_offset": -1000,
                          "quantification": 5000.5},
    }  # fmt: skip
    assert set(worker.job()) == job_fields("SuperResolveJob"), "every feature of the job is offered"
    assert set(worker.job()["scene_options"]) == job_fields("SceneOptions")


def test_superresolve_leaves_the_rest_to_the_job(provider, worker, scene, tmp_path) -> None:
    output = str(tmp_path / "out.tif")
    assert run("superresolve", {"INPUT": scene, "OUTPUT": output})["SCENE"] == Path(scene).stem
    assert worker.job() == {
        "job": "super_resolve", "scene": scene, "output": output, "models": [], "bands": [], "scene_options": {},
        "consistency": 0, "data_type": "uint16", "format": "gtiff", "compression": "deflate", "device": "auto",
        "precision": "auto", "allow_other_level": False, "engine": "auto",
    }  # fmt: skip


@pytest.mark.parametrize("minutes", [0, 0.0, None, NULL, ""])
def test_no_minutes_mean_no_adapting(provider, worker, scene, tmp_path, minutes) -> None:
    run("superresolve", {"INPUT": scene, "OUTPUT": str(tmp_path / "o.tif"), "ADAPT": minutes})
    assert "adapt" not in worker.job()


def test_a_list_may_be_one_text(provider, worker, scene, tmp_path) -> None:
    run("superresolve", {"INPUT": scene, "OUTPUT": str(tmp_path / "o.tif"), "BANDS": "B12,B04"})
    assert worker.job()["bands"] == ["B12", "B04"]


def test_empty_cells_of_a_batch_are_no_values(provider, worker, scene, tmp_path) -> None:
    empty = ("EXTENT", "MODEL_FOLDER", "BAND_NAMES")
    run("superresolve", {"INPUT": scene, "OUTPUT": str(tmp_path / "o.tif"), **dict.fromkeys(empty, NULL)})
    assert "roi" not in worker.job()
    assert worker.job()["models"] == worker.job()["bands"] == []
    assert worker.job()["scene_options"] == {}


def test_an_extent_without_epsg_code_becomes_longitude_and_latitude(provider, worker, scene, tmp_path) -> None:
    run("superresolve", {"INPUT": scene, "OUTPUT": str(tmp_path / "o.tif"),
                         "EXTENT": "600000,610000,5700000,5710000 [ESRI:102014]"})  # fmt: skip
    west, south, east, north = map(float, worker.job()["roi"].split(" ")[0].split(","))
    assert worker.job()["roi"].endswith(" EPSG:4326")
    assert -180 < west < east < 180
    assert -90 < south < north < 90


def test_an_extent_without_projection_is_the_scenes(provider, worker, scene, tmp_path) -> None:
    run("superresolve", {"INPUT": scene, "OUTPUT": str(tmp_path / "o.tif"), "EXTENT": "600000,610000,5700000,5710000"})
    assert worker.job()["roi"] == "600000.0,5700000.0,610000.0,5710000.0"


def test_superresolve_refuses(provider, context, scene, tmp_path) -> None:
    good = {"INPUT": scene, "OUTPUT": str(tmp_path / "o.tif")}
    assert algorithm("superresolve").checkParameterValues(good, context)[0]
    assert refusal("superresolve", {**good, "INPUT": "/no/a.SAFE"}, context) == "There is no scene at /no/a.SAFE."
    assert "is no model folder" in refusal("superresolve", {**good, "MODEL_FOLDER": str(tmp_path)}, context)
    assert "/no/folder does not exist" in refusal("superresolve", {**good, "OUTPUT": "/no/folder/o.tif"}, context)
    assert "CONSISTENCY" in refusal("superresolve", {**good, "CONSISTENCY": 3}, context)
    assert "DEVICE" in refusal("superresolve", {**good, "DEVICE": "abacus"}, context)
    assert "must end in .tif" in refusal("superresolve", {**good, "OUTPUT": str(tmp_path / "o.png")}, context)
    assert "ADAPT" in refusal("superresolve", {**good, "ADAPT": -1}, context)


def test_an_error_of_the_worker_fails_the_algorithm(provider, worker, scene, tmp_path) -> None:
    worker.behave("error")
    with pytest.raises(QgsProcessingException, match="upside down"):
        run("superresolve", {"INPUT": scene, "OUTPUT": str(tmp_path / "o.tif")})


def test_dataset_job(provider, worker, scene, tmp_path) -> None:
    worker.behave("ok", {"n_train": 80, "n_valid": 12, "n_test": 8})
    output = str(tmp_path / "dataset")
    results = run("createsharpeningdataset", {
        "SCENES": [scene, scene], "TASK": "60m", "OUTPUT": output, "EXTENT": "0,1,2,3 [EPSG:4326]", "PATCH_SIZE": 48,
        "STEP": 24, "SCALES": 2, "CLOUDS": 1, "TEACHER": str(tmp_path), "TEACHER_VARIANTS": 2, "MIXTURES": 9,
        "SPLIT": "blocks", "VALID": 0.2, "TEST": 0.2, "BLOCK_SIZE": 4,
        "SIGMA": 0.5, "SENSOR_MTF": True, "LICENCE": "CC0", "SEED": 7,
    })  # fmt: skip
    assert results == {"OUTPUT": output, "TRAIN_PATCHES": 80, "VALID_PATCHES": 12, "TEST_PATCHES": 8}
    assert worker.job() == {
        "job": "create_sharpening_dataset", "scenes": [scene, scene], "output": output, "scene_options": {},
        "train": 0.6, "valid": 0.2, "test": 0.2, "sensor_mtf": True, "roi": "0.0,2.0,1.0,3.0 EPSG:4326",
        "task": "60m", "patch_size": 48, "step": 24, "scales": 2, "clouds": 1, "teacher": str(tmp_path),
        "teacher_variants": 2, "mixtures": 9, "sigma": 0.5, "split": "blocks",
        "block_size": 4, "licence": "CC0", "seed": 7,
    }  # fmt: skip
    assert set(worker.job()) == job_fields("CreateSharpeningDatasetJob")


def test_cross_sensor_dataset_job(provider, worker, scene, tmp_path) -> None:
    worker.behave("ok", {"n_train": 8, "n_valid": 2, "n_test": 1})
    output, image = str(tmp_path / "dataset"), tmp_path / "image.tif"
    image.write_bytes(b"")
    image = str(image)
    results = run("createcrosssensordataset", {
        "XS": image, "PAN": image, "INPUT": scene, "START": "2022-06-15", "END": "2022-08-15",
        "CATALOG": "earth-search", "MAX_AREA_CLOUD": 3, "BANDS": "B04, B03",
        "RATIO": 4, "INTERPOLATION": "linear", "PANSHARPENING": "lmvm",
        "PATCH_SIZE": 16, "STEP": 8, "STRATEGY": "chessboard", "VALID": 0.2, "TEST": 0.2, "BLOCK_SIZE": 3,
        "MASK": image, "NODATA": 0, "COREGISTER": True, "HARMONIZE": True,
        "MAX_SHIFT": 2, "MAX_DAYS": 30, "MIN_CORRELATION": 0.5,
        "FORCE": True, "ENGINE": "native", "COMPAT": "otbtf", "LICENCE": "CC0", "SEED": 7, "OUTPUT": output,
    })  # fmt: skip
    assert results == {"OUTPUT": output, "TRAIN_PATCHES": 8, "VALID_PATCHES": 2, "TEST_PATCHES": 1}
    assert worker.job() == {
        "job": "create_cross_sensor_dataset", "xs": image, "pan": image, "scene": scene, "output": output,
        "scene_options": {}, "start": "2022-06-15", "end": "2022-08-15", "catalog": "earth-search", "max_area_cloud": 3,
        "bands": ["B04", "B03"], "ratio": 4, "interpolation": "linear", "pansharpening": "lmvm", "patch_size": 16,
        "step": 8, "strategy": "chessboard", "train": 0.6, "valid": 0.2, "test": 0.2, "block_size": 3, "mask": image,
        "nodata": 0, "coregister": True, "harmonize": True, "max_shift": 2, "max_days": 30, "min_correlation": 0.5,
        "force": True, "engine": "native", "compat": "otbtf", "licence": "CC0", "seed": 7,
    }  # fmt: skip
    assert set(worker.job()) == job_fields("CreateCrossSensorDatasetJob")


def test_cross_sensor_dataset_refuses(provider, context, scene, tmp_path) -> None:
    image = tmp_path / "image.tif"
    image.write_bytes(b"")
    good = {"XS": str(image), "INPUT": scene, "OUTPUT": str(tmp_path / "d")}
    assert algorithm("createcrosssensordataset").checkParameterValues(good, context)[0]
    assert "no image at /no.tif" in refusal("createcrosssensordataset", {**good, "PAN": "/no.tif"}, context)
    assert "no scene at /no" in refusal("createcrosssensordataset", {**good, "INPUT": "/no"}, context)
    shares = {"VALID": 0.5, "TEST": 0.5}
    assert "nothing to train with" in refusal("createcrosssensordataset", {**good, **shares}, context)


def test_dataset_refuses(provider, context, scene, tmp_path) -> None:
    good = {"SCENES": [scene], "OUTPUT": str(tmp_path / "d")}
    assert algorithm("createsharpeningdataset").checkParameterValues(good, context)[0]
    assert "no scene at /no" in refusal("createsharpeningdataset", {**good, "SCENES": [scene, "/no"]}, context)
    shares = {"VALID": 0.5, "TEST": 0.5}
    assert "nothing to train with" in refusal("createsharpeningdataset", {**good, **shares}, context)
    assert "does not exist" in refusal("createsharpeningdataset", {**good, "OUTPUT": "/no/folder/d"}, context)


def test_training_trains_and_exports(provider, worker, feedback, dataset, tmp_path) -> None:
    run_folder, model_folder = str(tmp_path / "run"), str(tmp_path / "out_model")
    report = run_folder + "/report.html"
    worker.behave("ok", {"rmse": 30.5, "rmse_bicubic": 100.0, "report": report})
    results = run("trainmodel", {
        "DATASET": dataset, "MORE_DATASETS": [dataset + "/dataset.yaml"], "NETWORK": "dsen2", "EPOCHS": 3,
        "MAX_MINUTES": 2.5, "SEED": 5,
        "NETWORK_OPTIONS": "blocks=4; guides=[[0]]; spectrum=false",
        "RUN": run_folder, "MODEL": model_folder, "SAVED_MODEL": False,
    }, feedback)  # fmt: skip
    assert results == {"RUN": run_folder, "MODEL": model_folder, "RMSE": 30.5, "RMSE_BICUBIC": 100, "REPORT": report}
    assert algorithm("trainmodel").outputDefinition("REPORT").type() == "outputHtml", "the Results Viewer opens it"
    train, export = worker.jobs()
    assert train == {
        "job": "train", "datasets": [dataset, dataset], "output": run_folder, "network": "dsen2", "epochs": 3,
        "max_minutes": 2.5, "seed": 5, "batch_size": 16, "learning_rate": 0.001, "loss": "l1", "optimizer": "adamw",
        "schedule": "cosine", "early_stopping": 20, "dihedral": True, "gain": 0.25, "band_gain": 0.15,
        "mixed_precision": "auto", "resume": False,
        "network_options": {"blocks": 4, "guides": [[0]], "spectrum": False},
    }  # fmt: skip
    assert set(train) <= job_fields("TrainJob")
    assert export == {"job": "export", "run": run_folder, "output": model_folder, "saved_model": False}
    assert set(export) <= job_fields("ExportJob")
    assert feedback.percents == [20, 50, 70], "the two steps share the progress bar"


def test_training_defaults_are_the_jobs(provider) -> None:
    """QGIS shows the defaults, so it repeats them; they must not drift apart."""
    tree = ast.parse((ROOT / "s2sr_qgis" / "core" / "jobs.py").read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainJob")
    defaults = {}
    for node in body:
        if isinstance(node, ast.AnnAssign):
            value = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
            if isinstance(value, ast.Constant):
                defaults[node.target.id] = value.value
    shown = [p for p in algorithm("trainmodel").parameterDefinitions() if p.name().lower() in defaults]
    assert len(shown) >= 15
    for parameter in shown:
        assert parameter.defaultValue() == defaults[parameter.name().lower()], parameter.name()


def test_network_options_are_listed_as_the_job_lists_them(provider) -> None:
    text = "".join((ROOT / "s2sr_qgis" / "core" / "jobs.py").read_text().split('"\n    "'))
    shown = algorithm("trainmodel").parameterDefinition("NETWORK_OPTIONS").help()
    assert shown.partition("They are: ")[2] in text


def test_training_refuses(provider, context, dataset, tmp_path) -> None:
    good = {"DATASET": dataset, "RUN": str(tmp_path / "r"), "MODEL": str(tmp_path / "m")}
    assert algorithm("trainmodel").checkParameterValues(good, context) == (True, "")
    assert "'blocks=[1' is not a name" in refusal("trainmodel", {**good, "NETWORK_OPTIONS": "blocks=[1"}, context)
    assert "is no dataset" in refusal("trainmodel", {**good, "DATASET": str(tmp_path)}, context)
    assert "does not exist" in refusal("trainmodel", {**good, "MODEL": "/no/folder/m"}, context)


def row(scale: float, **more: float) -> dict:
    return {"model": {"rmse": scale, "sre": None, "uiq": 0.98, **more}, "ratio": 0.25,
            "bicubic": {"rmse": 4 * scale, "sre": 20.0, "uiq": 0.9, **more}}  # fmt: skip


def test_evaluation(provider, worker, scene, model, tmp_path) -> None:
    worker.behave("ok", {"mean": row(15, sam=1.5, spatial_shift=0.1)})
    json_file, html = str(tmp_path / "f.json"), str(tmp_path / "f.html")
    results = run("evaluatemodel", {
        "INPUT": scene, "MODEL_FOLDER": model, "EXTENT": "0,1,2,3 [EPSG:4326]", "BORDER": 8, "SIGMA": 0.4,
        "OUTPUT_JSON": json_file, "OUTPUT_HTML": html, "THREADS": 2,
    })  # fmt: skip
    known = {name: value for name, value in results.items() if value is not None}
    assert known == {
        "RMSE": 15, "RMSE_BICUBIC": 60, "SRE_BICUBIC": 20, "SAM": 1.5, "SAM_BICUBIC": 1.5, "UIQ": 0.98,
        "UIQ_BICUBIC": 0.9, "SPATIAL_SHIFT": 0.1, "SPATIAL_SHIFT_BICUBIC": 0.1, "OUTPUT_JSON": json_file,
        "OUTPUT_HTML": html,
    }  # fmt: skip
    assert results["SRE"] is None, "infinite"
    assert {output.name() for output in algorithm("evaluatemodel").outputDefinitions()} == set(results)
    assert worker.job() == {
        "job": "evaluate", "scene": scene, "model": model, "scene_options": {}, "roi": "0.0,2.0,1.0,3.0 EPSG:4326",
        "border": 8, "sigma": 0.4, "json_file": json_file, "report": html, "device": "auto", "threads": 2,
        "precision": "auto", "allow_other_level": False,
    }  # fmt: skip
    assert set(worker.job()) == job_fields("EvaluateJob")


def test_evaluation_without_files(provider, worker, scene, model) -> None:
    worker.behave("ok", {"mean": row(15, sam=1.5)})
    results = run("evaluatemodel", {"INPUT": scene, "MODEL_FOLDER": model})
    assert results["OUTPUT_JSON"] is results["OUTPUT_HTML"] is None
    assert results["RMSE"] == 15
    assert not {"json_file", "report"} & set(worker.job())


def test_evaluation_refuses(provider, context, scene, model, monkeypatch) -> None:
    from s2sr_qgis.algorithms import evaluatemodel

    good = {"INPUT": scene, "MODEL_FOLDER": model}
    assert algorithm("evaluatemodel").checkParameterValues(good, context)[0]
    assert "no scene at /no" in refusal("evaluatemodel", {**good, "INPUT": "/no"}, context)
    assert "does not exist" in refusal("evaluatemodel", {**good, "OUTPUT_JSON": "/no/folder/f.json"}, context)
    monkeypatch.setattr(evaluatemodel, "bundled_models", lambda: [])
    assert refusal("evaluatemodel", {"INPUT": scene}, context) == "Choose a bundled model or a model folder."


def test_check_environment(provider, worker, feedback) -> None:
    worker.behave("ok", {
        "python": "3.11.2", "executable": "/x/python", "packages": {"numpy": "2.4", "tensorflow": None},
        "devices": ["cuda", "cpu"], "training": False, "training_devices": [],
        "models": [{"name": "sharpen_20m", "title": "20 m", "levels": ["L2A"], "metrics": {"rmse": 0.004}}],
    })  # fmt: skip
    assert run("checkenvironment", {}, feedback) == {
        "PYTHON": "/x/python", "PYTHON_VERSION": "3.11.2", "DEVICES": "cuda, cpu", "TRAINING": False,
        "MODELS": "sharpen_20m",
    }  # fmt: skip
    assert "  tensorflow: not installed" in feedback.said["info"]
    assert "    rmse: 0.004" in feedback.said["info"]


def test_setup_refuses_two_sources_of_packages(provider, context, tmp_path) -> None:
    both = {"INDEX_URL": "https://mirror", "WHEELS": str(tmp_path)}
    assert refusal("setupenvironment", both, context).endswith("not both.")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/a/S2A_MSIL2A.SAFE", "S2A_MSIL2A"),
        ("/a/S2A_MSIL2A.SAFE/MTD_MSIL2A.xml", "S2A_MSIL2A"),
        ("C:\\data\\S2A_MSIL2A.SAFE\\", "S2A_MSIL2A"),
        ("/a/S2A_MSIL1C.zip", "S2A_MSIL1C"),
        ("https://stac/items/S2A_T33.json?sig=1", "S2A_T33"),
        ("/a/bands", "bands"),
    ],
)
def test_a_result_is_named_from_the_scene(provider, source: str, name: str) -> None:
    from s2sr_qgis.algorithms.checks import scene_name

    assert scene_name(source) == name
