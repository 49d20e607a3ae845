"""Jobs for OTBTF's TensorflowModelServe; OTBTF itself is asked in tests/otb, where it is."""

import sys

import pytest
from array_image import ArrayImage, noise, utm
from golden_windows import arguments, runs

from s2sr_qgis.core.errors import InputError, MissingPackageError
from s2sr_qgis.core.raster import otb
from s2sr_qgis.core.raster.otb import otb_available, otbtf_available
from s2sr_qgis.core.raster.pansharpening import bundle_to_perfect_sensor
from s2sr_qgis.core.raster.serve import Source, serve, serve_job
from s2sr_qgis.core.raster.superimpose import superimpose

X = Source("x", 20.0, ["inputs/s2_20m_nonodatatag.tif"])


@pytest.mark.parametrize("run", runs("srv_x2_crop16_ef64"))
def test_the_parameters_of_a_run_that_was_measured(run):
    given = {key: value for key, value in arguments(run).items() if key not in ("out", "dtype")}
    given |= {"source1.il": [given["source1.il"]], "output.names": [given["output.names"]], "model.fullyconv": True}
    job = serve_job("models/sr_x2", [X], "y", 10.0, 8, field=64)
    assert job.parameters == given | {"optim.disabletiling": True}
    assert (job.sources, job.crop, job.field) == (1, 16, 64)


def test_cross_sensor():
    """6 m to 1.5 m, as sr4rs has it: rfield = (efield + 2 crop) / 4, spacing scale 1/4."""
    job = serve_job("m", [Source("input_lr", 6.0, ["a.tif", "b.tif"])], "sharpened", 1.5, 13, multiple=2)
    p = job.parameters
    assert p["output.names"] == ["sharpened_crop64"]
    assert p["output.spcscale"] == 0.25
    assert p["output.efieldx"] == p["output.efieldy"] == 256
    assert p["source1.rfieldx"] == p["source1.rfieldy"] == (256 + 128) // 4
    assert p["source1.il"] == ["a.tif", "b.tif"]
    assert p["model.dir"] == "m"


def test_several_sources_go_finest_first():
    """Tiles are whole pixels of 10, 20 and 60 m; in another order OTBTF reads a source a pixel off."""
    sources = [Source("b60", 60.0, ["60.tif"]), Source("b10", 10.0, ["10.tif"]), Source("b20", 20.0, ["20.tif"])]
    job = serve_job("m", sources, "sharp", 10.0, 30, multiple=6)
    p = job.parameters
    assert [p[f"source{n}.placeholder"] for n in (1, 2, 3)] == ["b10", "b20", "b60"]
    assert job.sources == 3
    assert job.crop == 96
    assert p["output.spcscale"] == 1.0
    assert p["output.efieldx"] == 252
    assert [p[f"source{n}.rfieldx"] for n in (1, 2, 3)] == [444, 222, 74]


def test_where_the_output_lies():
    """Measured on OTBTF: 150 x 150 pixels of 20 m give 256 x 256 of 10 m with crop 16 and tiles of 64."""
    grid = serve_job("m", [X], "y", 10.0, 8, field=64).grid(utm(150, 150, 20.0))
    assert (grid.width, grid.height, grid.spacing) == (256, 256, 10.0)
    assert (grid.x, grid.y) == (600160.0, 4899860.0)
    with pytest.raises(InputError, match="40 x 150 pixels, but OTBTF needs 48 on each side"):
        serve_job("m", [X], "y", 10.0, 8, field=64).grid(utm(40, 150, 20.0))


def test_bad_jobs_are_told():
    with pytest.raises(InputError, match="needs at least one source"):
        serve_job("m", [], "y", 10.0, 8)
    with pytest.raises(InputError, match=r"pixels of 'x' \(20 m\) are no multiple of the output's \(1.5 m\)"):
        serve_job("m", [X], "y", 1.5, 8)


REASONS = [
    (
        "Exception thrown in otbApplication Application_Get: otbTensorflowMultisourceModelBase.hxx:161:\n"
        "itk::ERROR: TensorflowMultisourceModelFilter(0x1bb5e0a0): Can't run the tensorflow session !\n"
        "Tensorflow error message:\nFAILED_PRECONDITION: Could not find variable block6_a/kernel.\n\t [[{{node C}}]]\n"
        "OTB Filter debug message:\nInput #0:\nUser placeholders:\n",
        "FAILED_PRECONDITION: Could not find variable block6_a/kernel",
    ),
    (
        "TensorflowModelServe: error during during app execution (Exception thrown in otbApplication: x.cxx:76:\n"
        "itk::ERROR: Can't load the input model: NOT_FOUND: Could not find SavedModel .pb",
        "Can't load the input model: NOT_FOUND: Could not find SavedModel .pb",
    ),
    (
        'itk::ERROR: Tensor name "y" not found. \nYou can list all:\n\t `saved_model_cli show`',
        'Tensor name "y" not found',
    ),
    (
        "Superimpose: error before execution: Cannot open image a.tif.)",
        "Superimpose: error before execution: Cannot open image a.tif",
    ),
    ("", "for a reason that it does not name"),
]


@pytest.mark.parametrize(("text", "reason"), REASONS, ids=["session", "model", "tensor", "pyotb", "nothing"])
def test_the_sentence_has_otbs_own_reason(text, reason):
    assert otb._reason(RuntimeError(text)) == reason


@pytest.mark.skipif(otb_available(), reason="Orfeo ToolBox is there")
def test_without_otb_it_is_told_how_to_get_it(tmp_path):
    assert not otbtf_available()
    image = superimpose(_image(), utm(4, 4, 5.0))
    # Absent, or built for another NumPy than this Python's.
    how = r"Orfeo ToolBox .*; use the engine 'native', or install .*orfeo-toolbox\.org"
    with pytest.raises(MissingPackageError, match=how):
        superimpose(_image(), utm(4, 4, 5.0), engine="otb")
    with pytest.raises(MissingPackageError, match=how):
        bundle_to_perfect_sensor(image, _image(), engine="otb")
    with pytest.raises(MissingPackageError, match=how):
        serve(serve_job("m", [X], "y", 10.0, 8), ["y"])
    assert not list(tmp_path.iterdir())


def test_otb_that_cannot_be_loaded_is_told(monkeypatch):
    """pyotb ends the process where a library is missing; that must not end ours."""
    monkeypatch.setenv("OTB_ROOT", "/nowhere")

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "pyotb":
                raise SystemExit("Failed to import OTB. Exiting.")

    monkeypatch.setattr("sys.meta_path", [Broken()])
    monkeypatch.delitem(sys.modules, "pyotb", raising=False)
    with pytest.raises(MissingPackageError, match=r"cannot be loaded \(Failed to import OTB. Exiting.\)"):
        otb.applications()


def _image():
    return ArrayImage(noise(1, 4, 4), utm(4, 4, 5.0))
