"""What 'Import a model' asks the worker for, and what it refuses."""

from __future__ import annotations

from test_algorithms import algorithm, job_fields, refusal, run

NAME = "importmodel"


def test_the_job(provider, worker, tmp_path) -> None:
    source, output = tmp_path / "net", str(tmp_path / "model")
    source.mkdir()
    (source / "saved_model.pb").write_bytes(b"")
    worker.behave("ok", {"output": output})
    results = run(NAME, {
        "INPUT": str(source / "saved_model.pb"), "BANDS": "b10=B04, B03,b20=B05", "OUTPUT_BANDS": "B05",
        "OUTPUT_NAME": "sr", "SCALING": 0.0001, "OUTPUT_SCALING": 1, "RESOLUTION": 6, "PROCESSING_LEVEL": "L2A",
        "LICENCE": "CC0", "NAME": "mine", "TRANSPOSE": True, "SAVED_MODEL": True, "OUTPUT": output,
    })  # fmt: skip
    assert results == {"OUTPUT": output}
    assert worker.job() == {
        "job": "import_model", "source": str(source), "output": output, "bands": ["b10=B04", "B03", "b20=B05"],
        "output_bands": ["B05"], "output_name": "sr", "scaling": 0.0001, "output_scaling": 1.0, "resolution": 6.0,
        "processing_level": "L2A", "licence": "CC0", "name": "mine", "transpose": True, "saved_model": True,
    }  # fmt: skip
    assert set(worker.job()) == job_fields("ImportModelJob"), "every feature of the job is offered"


def test_what_is_left_empty_is_the_job_s(provider, worker, tmp_path) -> None:
    (tmp_path / "w.hdf5").write_bytes(b"")
    run(NAME, {"INPUT": str(tmp_path / "w.hdf5"), "OUTPUT": str(tmp_path / "m")})
    assert worker.job() == {
        "job": "import_model", "source": str(tmp_path / "w.hdf5"), "output": str(tmp_path / "m"), "transpose": False,
        "saved_model": False,
    }  # fmt: skip


def test_it_refuses(provider, context, tmp_path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    good = {"INPUT": str(tmp_path / "net.onnx"), "OUTPUT": str(tmp_path / "m")}
    assert algorithm(NAME).checkParameterValues(good, context)[0]
    assert "no network at /no/net.onnx" in refusal(NAME, {**good, "INPUT": "/no/net.onnx"}, context)
    assert "/no/folder does not exist" in refusal(NAME, {**good, "OUTPUT": "/no/folder/m"}, context)
