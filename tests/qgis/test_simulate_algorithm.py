"""What 'Simulate a Sentinel-2 image' asks the worker for, and what it refuses."""

from __future__ import annotations

from test_algorithms import algorithm, job_fields, refusal, run

NAME = "simulatescene"


def test_the_job(provider, worker, tmp_path) -> None:
    image, output = tmp_path / "a.tif", str(tmp_path / "out.tif")
    image.write_bytes(b"")
    worker.behave("ok", {"output": output})
    results = run(NAME, {"INPUT": str(image), "BANDS": "B02, B03 ,-,B08", "SPACING": 9.6, "GAIN": 4, "NOISE": False,
                         "SEED": 3, "OUTPUT": output})  # fmt: skip
    assert results == {"OUTPUT": output}
    assert worker.job() == {
        "job": "simulate", "image": str(image), "output": output, "bands": ["B02", "B03", "-", "B08"],
        "spacing": 9.6, "gain": 4.0, "noise": False, "seed": 3,
    }  # fmt: skip
    assert set(worker.job()) == job_fields("SimulateJob"), "every feature of the job is offered"


def test_it_refuses(provider, context, tmp_path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    good = {"INPUT": str(tmp_path / "a.tif"), "OUTPUT": str(tmp_path / "o.tif")}
    assert algorithm(NAME).checkParameterValues(good, context)[0]
    assert "no image at /no/a.tif" in refusal(NAME, {**good, "INPUT": "/no/a.tif"}, context)
    assert "/no/folder does not exist" in refusal(NAME, {**good, "OUTPUT": "/no/folder/o.tif"}, context)
    assert "must end in .tif" in refusal(NAME, {**good, "OUTPUT": str(tmp_path / "o.png")}, context)
    assert "SPACING" in refusal(NAME, {**good, "SPACING": 0}, context)
