"""The plugin as its users without a window meet it: `qgis_process`, the real worker, small real files."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

IDS = ("createsharpeningdataset", "trainmodel", "superresolve", "evaluatemodel", "imagesimilarity", "setupenvironment",
       "checkenvironment")  # fmt: skip


@pytest.mark.parametrize("name", IDS)
def test_help(qgis_process, name: str) -> None:
    status, out, err = qgis_process("help", f"s2sr:{name}")
    assert status == 0, err
    assert "Arguments" in out
    assert "<p>" not in out
    assert "\\n" not in out


def test_the_environment_is_checked(qgis_process) -> None:
    status, results, err = qgis_process.run("s2sr:checkenvironment", {})
    assert status == 0, err
    assert results["PYTHON"] == qgis_process.environment["S2SR_PYTHON"]
    assert results["DEVICES"].split(", ")[-1] == "cpu"


def test_a_product_comes_out_at_10_m(qgis_process, inputs, tmp_path) -> None:
    output = tmp_path / "out.tif"
    status, results, err = qgis_process.run(
        "s2sr:superresolve",
        {
            "INPUT": str(inputs / "small.SAFE"), "MODEL_FOLDER": str(inputs / "model_20m"),
            "SECOND_MODEL_FOLDER": str(inputs / "model_60m"), "CONSISTENCY": 1, "OUTPUT": str(output),
        },
    )  # fmt: skip
    assert status == 0, err
    assert results["OUTPUT"] == str(output)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".xml") == ["out.tif"]
    from qgis.core import QgsRasterLayer

    layer = QgsRasterLayer(str(output), "out")
    assert layer.bandCount() == 12
    assert (layer.width(), layer.height()) == (240, 240)
    assert layer.rasterUnitsPerPixelX() == 10
    assert "B8A" in layer.bandName(9)


@pytest.mark.parametrize("source", ["small.SAFE/MTD_MSIL2A.xml", "large", "stack.tif"])
def test_other_sources_bands_and_extents(qgis_process, inputs, tmp_path, source: str) -> None:
    """The command line's own way: words, and a key repeated for a list."""
    output = tmp_path / "out.tif"
    status, _, err = qgis_process(
        "run", "s2sr:superresolve", f"--INPUT={inputs / source}", f"--MODEL_FOLDER={inputs / 'model_20m'}",
        "--BANDS=B12", "--BANDS=B04", "--DATA_TYPE=float32", f"--OUTPUT={output}", "--ALLOW_OTHER_LEVEL=true",
        "--EXTENT=600600,601200,5398200,5399400" + (" [EPSG:32631]" if source != "large" else ""),
    )  # fmt: skip
    assert status == 0, err
    from qgis.core import Qgis, QgsRasterLayer

    layer = QgsRasterLayer(str(output), "out")
    assert [layer.bandName(1).split()[-1], layer.bandName(2).split()[-1]] == ["B12", "B04"]
    assert (layer.width(), layer.height()) == (60, 120)
    assert layer.dataProvider().dataType(1) == Qgis.DataType.Float32


def test_a_model_is_scored(qgis_process, inputs, tmp_path) -> None:
    files = {"OUTPUT_JSON": str(tmp_path / "figures.json"), "OUTPUT_HTML": str(tmp_path / "report.html")}
    status, results, err = qgis_process.run(
        "s2sr:evaluatemodel",
        {"INPUT": str(inputs / "small.SAFE"), "MODEL_FOLDER": str(inputs / "model_20m"), **files},
    )
    assert status == 0, err
    figures = json.loads(Path(files["OUTPUT_JSON"]).read_text())
    assert results["RMSE"] == pytest.approx(figures["mean"]["model"]["rmse"])
    assert results["RMSE_BICUBIC"] == pytest.approx(figures["mean"]["bicubic"]["rmse"])
    assert results["SAM"] > 0
    assert 0 < results["UIQ"] < 1
    assert ">B8A</th>" in Path(files["OUTPUT_HTML"]).read_text()


def test_two_images_are_compared(qgis_process, inputs, tmp_path) -> None:
    files = {"OUTPUT_JSON": str(tmp_path / "f.json"), "OUTPUT_HTML": str(tmp_path / "f.html"),
             "OUTPUT": str(tmp_path / "map.tif")}  # fmt: skip
    reference = str(inputs / "stack.tif")
    pair = {"REFERENCE": reference, "IMAGE": str(inputs / "other.tif"), "RATIO": 2}
    status, results, err = qgis_process.run("s2sr:imagesimilarity", {**pair, **files})
    assert status == 0, err
    figures = json.loads(Path(files["OUTPUT_JSON"]).read_text())
    assert results["RMSE"] == pytest.approx(figures["rmse"])
    assert 0 < results["RMSE"] < 1000
    assert 0 < results["UIQ"] < 1
    assert results["DATA_RANGE_USED"] == 10000
    assert "B8A" in Path(files["OUTPUT_HTML"]).read_text()
    from qgis.core import QgsRasterLayer

    layer = QgsRasterLayer(files["OUTPUT"], "map")
    assert (layer.width(), layer.height(), layer.bandCount()) == (240, 240, 1)

    equal = {"REFERENCE": reference, "IMAGE": reference, "MEASURES": ["rmse", "psnr"], "OUTPUT_HTML": ""}
    status, results, err = qgis_process.run("s2sr:imagesimilarity", equal)
    assert status == 0, err
    assert (results["RMSE"], results.get("PSNR")) == (0, None)

    (tmp_path / "no").mkdir()
    coarse = {"REFERENCE": reference, "IMAGE": str(inputs / "coarse.tif"), "OUTPUT": str(tmp_path / "no" / "map.tif")}
    status, _, err = qgis_process.run("s2sr:imagesimilarity", coarse)
    assert status != 0
    assert "stack.tif is EPSG:" in err
    assert "coarse.tif is EPSG:" in err
    assert "Traceback" not in err
    assert list((tmp_path / "no").iterdir()) == []


def test_a_dataset_is_cut(qgis_process, inputs, tmp_path) -> None:
    status, results, err = qgis_process.run(
        "s2sr:createsharpeningdataset",
        {
            "SCENES": [str(inputs / "large")], "PATCH_SIZE": 32, "BLOCK_SIZE": 2, "PROCESSING_LEVEL": "L2A",
            "OUTPUT": str(tmp_path / "dataset"),
        },
    )  # fmt: skip
    assert status == 0, err
    assert results["TRAIN_PATCHES"] > results["TEST_PATCHES"] > 0
    assert (tmp_path / "dataset" / "dataset.yaml").is_file()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"INPUT": "/no/scene"}, "There is no scene at /no/scene."),
        ({"INPUT": "{inputs}/model_20m"}, "model_20m"),
        ({"MODEL_FOLDER": "{inputs}/model_l1c"}, "is for L1C, but the scene is L2A"),
        ({"EXTENT": "0,1000,0,1000 [EPSG:32631]"}, "outside"),
        ({"OUTPUT": "{output}/no/folder/out.tif"}, "does not exist"),
    ],
)
def test_bad_input_is_one_sentence_an_exit_status_and_no_file(
    qgis_process, inputs, tmp_path, change: dict[str, str], sentence: str
) -> None:
    good = {
        "INPUT": str(inputs / "small.SAFE"),
        "MODEL_FOLDER": str(inputs / "model_20m"),
        "OUTPUT": str(tmp_path / "out.tif"),
    }
    changed = {name: value.format(inputs=inputs, output=tmp_path) for name, value in change.items()}
    status, _, err = qgis_process.run("s2sr:superresolve", {**good, **changed})
    assert status != 0
    assert sentence in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_without_an_environment_the_ways_to_one_are_named(qgis_process, inputs, tmp_path, monkeypatch) -> None:
    monkeypatch.delitem(qgis_process.environment, "S2SR_PYTHON")
    status, _, err = qgis_process.run(
        "s2sr:superresolve", {"INPUT": str(inputs / "small.SAFE"), "OUTPUT": str(tmp_path / "out.tif")}
    )
    assert status != 0
    assert "Set up the environment" in err
    assert list(tmp_path.iterdir()) == []


def test_training_without_tensorflow_says_what_to_do(qgis_process, inputs, tmp_path, monkeypatch) -> None:
    """An environment of its own, with a TensorFlow that cannot be imported before the real one."""
    for name in ("tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')")
    real = qgis_process.environment["S2SR_PYTHON"]
    subprocess.run([real, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    packages = subprocess.run(
        [real, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "first.pth").write_text(f"{tmp_path}\nimport site; site.addsitedir({packages!r})\n")
    monkeypatch.setitem(qgis_process.environment, "S2SR_PYTHON", str(tmp_path / "venv" / "bin" / "python"))
    (tmp_path / "out").mkdir()
    outputs = {"RUN": str(tmp_path / "out" / "run"), "MODEL": str(tmp_path / "out" / "model")}
    status, _, err = qgis_process.run("s2sr:trainmodel", {"DATASET": str(inputs / "dataset"), "EPOCHS": 1, **outputs})
    assert status != 0
    assert "tensorflow" in err.lower() or "keras" in err
    assert "Traceback" not in err
    assert "nvironment" in err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cancel_leaves_no_file_and_no_process(qgis_process, inputs, tmp_path, number: int) -> None:
    process = qgis_process.start(
        "run", "s2sr:superresolve", f"--INPUT={inputs / 'large'}", f"--MODEL_FOLDER={inputs / 'model_20m'}",
        "--PROCESSING_LEVEL=L2A", "--TILE_SIZE=60", "--THREADS=1", f"--OUTPUT={tmp_path / 'out.tif'}",
    )  # fmt: skip
    try:
        waited = time.monotonic() + 60
        while not list(tmp_path.glob(".out.tif-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < waited
            time.sleep(0.02)
        process.send_signal(number)
        asked = time.monotonic()
        process.communicate(timeout=15)
        while qgis_process.processes() or list(tmp_path.iterdir()):
            assert time.monotonic() < asked + 15, (qgis_process.processes(), list(tmp_path.iterdir()))
            time.sleep(0.1)
        assert process.returncode != 0
    finally:
        process.kill()
        process.communicate()


def test_a_model_chains_the_algorithms(qgis_process, inputs, tmp_path) -> None:
    from model3 import chain_to_rescale

    model = chain_to_rescale(tmp_path / "chain.model3", inputs / "model_20m")
    (tmp_path / "out").mkdir()
    final = tmp_path / "out" / "final.tif"
    status, out, err = qgis_process("run", str(model), f"--scene={inputs / 'small.SAFE'}", f"--final={final}")
    assert status == 0, err + out
    assert final.is_file()


@pytest.mark.slow
@pytest.mark.train
def test_from_scenes_to_a_model_of_ones_own(qgis_process, inputs, tmp_path) -> None:
    """Dataset, training with export, and sharpening with the model that came of it, as one model."""
    from model3 import chain_of_training

    model = chain_of_training(tmp_path / "train.model3")
    status, out, err = qgis_process(
        "run", str(model), f"--scene={inputs / 'large'}", f"--final={tmp_path / 'final.tif'}", timeout=900
    )
    assert status == 0, err + out
    assert (tmp_path / "final.tif").is_file()
