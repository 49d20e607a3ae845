"""The command line: every field of a job is an option, nothing more; errors, exit status, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import InputError, MissingPackageError
from s2sr_qgis.core.progress import Progress
from training_cli.main import app

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    ("search",): jobs.SearchScenesJob,
    ("dataset", "sharpening"): jobs.CreateSharpeningDatasetJob,
    ("simulate",): jobs.SimulateJob,
    ("train",): jobs.TrainJob,
    ("export",): jobs.ExportJob,
    ("super-resolve",): jobs.SuperResolveJob,
    ("evaluate",): jobs.EvaluateJob,
    ("similarity",): jobs.SimilarityJob,
    ("check",): jobs.CheckEnvironmentJob,
}
POSITIONAL = {"area", "image", "reference", "scenes", "datasets", "run", "scene", "model"}
RENAMED = {"models": "--model", "measures": "--measure", "json_file": "--json", "network_options": "--network-option"}


class Recorder:
    """Stands for `jobs.run`: keeps the jobs that it was asked to run."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.outputs: dict[str, Any] = {"output": "somewhere.tif"}
        self.error: BaseException | None = None

    def __call__(self, job: Any, progress: Progress | None = None) -> dict[str, Any]:
        self.jobs.append(job)
        if self.error:
            raise self.error
        assert progress is not None
        progress.progress(50, "half")
        progress.log("a warning", "warning")
        return self.outputs


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(jobs, "run", recorder)
    return recorder


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """For jobs whose real outputs do not matter to a test."""
    monkeypatch.setattr("training_cli.report.show", lambda job, outputs: None)


def s2sr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def fields(job_type: Any) -> list[str]:
    names = []
    for name, field in job_type.model_fields.items():
        if field.annotation is jobs.SceneOptions:
            names += jobs.SceneOptions.model_fields
        elif name != "job":
            names.append(name)
    return names


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_is_an_option_and_every_option_a_field(command: tuple[str, ...]) -> None:
    text = s2sr(*command, "--help").output
    shown = set(re.findall(r"^\s+(?:-\w, )?(--[a-z0-9-]+)", text, flags=re.MULTILINE))
    wanted = {RENAMED.get(n, "--" + n.replace("_", "-")) for n in fields(COMMANDS[command]) if n not in POSITIONAL}
    assert shown == wanted | {"--config", "--debug", "--help"}


def test_help_shows_the_model_s_default_and_description() -> None:
    text = " ".join(s2sr("train", "--help").output.split())
    for name in ("epochs", "learning_rate", "schedule"):
        field = jobs.TrainJob.model_fields[name]
        assert f"{field.description} [default: {field.default}]" in text


def test_only_what_is_given_reaches_the_job(recorder: Recorder) -> None:
    result = s2sr(
        *("super-resolve", "a.SAFE", "-o", "o.tif", "-m", "one", "-m", "two", "--bands", "B05,B12", "--bands", "B11"),
        *("--roi", "1,2,3,4 EPSG:4326", "--no-allow-other-level", "--consistency", 1, "--radiometric-offset", -1000),
    )
    assert result.exit_code == 0, result.output
    (job,) = recorder.jobs
    assert job.model_dump(mode="json", exclude_unset=True) == {
        "job": "super_resolve",
        "scene": "a.SAFE",
        "output": "o.tif",
        "models": ["one", "two"],
        "bands": ["B05", "B12", "B11"],
        "roi": "1,2,3,4 EPSG:4326",
        "allow_other_level": False,
        "consistency": 1,
        "scene_options": {"radiometric_offset": -1000},
    }
    assert "somewhere.tif" in result.stdout
    assert "a warning" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("dataset", "sharpening", "a", "b", "--task", "60m", "-o", "d", "--band-names", "B02,B8A"),
            {"scenes": ["a", "b"], "task": "60m", "output": "d", "scene_options": {"band_names": ["B02", "B8A"]}},
        ),
        (("export", "r", "-o", "m", "--no-saved-model"), {"run": "r", "output": "m", "saved_model": False}),
        (("evaluate", "m", "s", "--json", "f.json"), {"model": "m", "scene": "s", "json_file": "f.json"}),
        (
            ("similarity", "r.tif", "i.tif", "-m", "rmse", "-m", "q2n", "--bands", "B02,2", "--json", "f.json"),
            {
                "reference": "r.tif",
                "image": "i.tif",
                "measures": ["rmse", "q2n"],
                "bands": ["B02", "2"],
                "json_file": "f.json",
            },
        ),
        (
            ("similarity", "s.SAFE", "i.tif", "--consistency", "--definition", "up42", "--data-range", 4095),
            {"reference": "s.SAFE", "image": "i.tif", "consistency": True, "definition": "up42", "data_range": 4095.0},
        ),
        (("check",), {}),
        (
            ("search", "-5.5,40,-5,41", "--start", "2023-06-01", "--end", "2023-06-30", "-o", "f.gpkg", "--best", 1),
            {"area": "-5.5,40,-5,41", "start": "2023-06-01", "end": "2023-06-30", "output": "f.gpkg", "best": 1},
        ),
    ],
)
def test_commands_fill_in_their_job(
    recorder: Recorder, silent: None, arguments: tuple[str, ...], expected: dict[str, Any]
) -> None:
    result = s2sr(*arguments)
    assert result.exit_code == 0, result.output
    given = recorder.jobs[0].model_dump(mode="json", exclude_unset=True)
    assert {name: value for name, value in given.items() if name != "job"} == expected


def test_a_run_s_own_file_reproduces_it_and_options_win(recorder: Recorder, tmp_path: Path) -> None:
    first = jobs.parse(
        {
            **{"job": "train", "datasets": ["d"], "output": "r", "epochs": 7, "loss": "l2"},
            "network_options": {"width": 32, "depth": 4},
        }
    )
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(first.model_dump(mode="json")))
    assert s2sr("train", "--config", file).exit_code == 0
    assert s2sr("train", "other", "--config", file, "--epochs", 9, "--network-option", "width=64").exit_code == 0
    assert s2sr("run", file).exit_code == 0
    same, changed, by_run = recorder.jobs
    assert same == first == by_run
    assert (changed.datasets, changed.epochs, changed.loss) == ([Path("other")], 9, "l2")
    assert changed.network_options == {"width": 64, "depth": 4}


def test_run_takes_json(recorder: Recorder, silent: None, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"job": "evaluate", "model": "m", "scene": "s"}))
    assert s2sr("run", file).exit_code == 0
    assert recorder.jobs == [jobs.EvaluateJob(model="m", scene="s")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train",), ["DIR", "--output", "must be given"]),
        (("train", "d", "-o", "r", "--epochs", "0"), ["epochs", "greater"]),
        (("train", "d", "-o", "r", "--epochs", "many"), ["--epochs", "integer"]),
        (("train", "d", "-o", "r", "--loss", "l3"), ["--loss", "l1"]),
        (("train", "d", "-o", "r", "--network-option", "width"), ["KEY=VALUE"]),
        (("train", "--config", "no.yaml"), ["no.yaml", "cannot be read"]),
        (("run", "no.yaml"), ["no.yaml", "cannot be read"]),
        (("similarity", "a", "b", "-m", "beauty"), ["beauty", "rmse", "spatial_shift"]),
        (("similarity", "a"), ["IMAGE", "must be given"]),
        (("sing",), ["sing"]),
    ],
)
def test_wrong_use_is_status_2(recorder: Recorder, arguments: tuple[str, ...], words: list[str]) -> None:
    result = s2sr(*arguments)
    assert result.exit_code == 2
    assert not recorder.jobs
    assert not result.stdout
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("job: export\nrun: r\noutput: o\n", ["export", "train"]),
        ("[1, 2]", ["no job"]),
        ("a: [", ["neither YAML nor JSON"]),
        ("job: train\ndatasets: [d]\noutput: r\ncolour: red\n", ["colour"]),
    ],
)
def test_a_wrong_file_is_status_2(recorder: Recorder, tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    result = s2sr("train", "--config", file)
    assert result.exit_code == 2
    assert not recorder.jobs
    assert all(word in result.stderr for word in words), result.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("The zip x.zip is damaged; download it again."), "The zip x.zip is damaged; download it again."),
        (MissingPackageError("TensorFlow is missing."), "TensorFlow is missing."),
        (ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow"), "lacks the package 'tensorflow'"),
        (ValueError("two\nlines"), "Unexpected ValueError: two lines"),
    ],
)
def test_an_error_is_one_sentence_and_status_1(recorder: Recorder, error: BaseException, words: str) -> None:
    recorder.error = error
    result = s2sr("evaluate", "m", "s")
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not result.stdout
    assert s2sr("evaluate", "m", "s", "--debug").exception is error


def test_version_is_the_project_s() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"$', text, flags=re.MULTILINE)
    assert version
    assert s2sr("--version").stdout.strip() == f"s2sr {version[1]}"
    assert re.search(rf"^version={re.escape(version[1])}$", (ROOT / "metadata.txt").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(("command", "word"), [((), "super-resolve"), (("similarity",), "--measure")])
def test_help_imports_nothing_heavy(command: tuple[str, ...], word: str) -> None:
    code = (
        "import sys\nfrom training_cli.main import app\n"
        "try: app([*sys.argv[1:], '--help'])\n"
        "except SystemExit: print('MODULES', *{m.partition('.')[0] for m in sys.modules})"
    )
    run = [sys.executable, "-c", code, *command]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"numpy", "scipy", "rasterio", "onnxruntime", "tensorflow", "keras", "skimage", "matplotlib", "pystac"}
    assert not heavy & set(done.stdout.partition("MODULES")[2].split())
    assert word in done.stdout


SLOW_JOB = """
import sys, time
from pathlib import Path
from s2sr_qgis.core import jobs
from training_cli.main import app

def run(job, progress):
    print("running", flush=True)
    try:
        while True:
            time.sleep(0.02)
            if not STUBBORN:
                progress.check()
    finally:
        Path(sys.argv.pop()).write_text("cleaned")

STUBBORN = sys.argv.pop() == "stubborn"
jobs.run = run
app(["evaluate", "m", "s"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "temper", "times", "status"),
    [
        (signal.SIGINT, "polite", 1, 130),
        (signal.SIGTERM, "polite", 1, 143),
        pytest.param(
            getattr(signal, "SIGHUP", None),
            "polite",
            1,
            129,
            marks=pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP"),
        ),
        (signal.SIGINT, "stubborn", 2, 130),
    ],
)
def test_ctrl_c_stops_the_job_cleanly(tmp_path: Path, number: int, temper: str, times: int, status: int) -> None:
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", SLOW_JOB, str(trace), temper]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.5)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == status, errors
    assert trace.read_text() == "cleaned"
    assert "Traceback" not in errors


def test_scenes_found_are_a_table(recorder: Recorder) -> None:
    known = {"id": "S2A_33TWL", "date": "2023-08-15T09:58:11Z", "cloud": 12.34, "area_cloud": 0.04, "area_nodata": 2.0,
             "baseline": "05.09", "platform": "S2A"}  # fmt: skip
    unknown = dict.fromkeys(known) | {"id": "S2B_33TWL"}
    recorder.outputs = {
        "output": "f.gpkg",
        "count": 2,
        "best": "https://stac/items/S2A_33TWL",
        "scenes": [known, unknown],
    }
    lines = s2sr(
        "search", "1,2,3,4", "--start", "2023-06-01", "--end", "2023-06-30", "-o", "f.gpkg"
    ).stdout.splitlines()
    assert re.split(r"\s{2,}", lines[0].strip())[:4] == ["date", "cloud %", "over area %", "nodata %"]
    assert lines[1].split() == ["2023-08-15", "12.3", "0.0", "2.0", "05.09", "S2A", "S2A_33TWL"]
    assert lines[2].split() == ["S2B_33TWL"]
    assert lines[3:] == ["Footprints in f.gpkg", "Best scene: https://stac/items/S2A_33TWL"]


def test_an_option_of_search_that_does_not_exist(recorder: Recorder) -> None:
    """Areas may start with a minus; misspelt options must not pass for it."""
    result = s2sr("search", "1,2,3,4", "--begin", "2023-06-01", "--end", "2023-06-30", "-o", "f.gpkg")
    assert result.exit_code == 2
    assert "--begin" in result.stderr
    assert recorder.jobs == []


def test_an_evaluation_is_a_table_beside_bicubic(recorder: Recorder) -> None:
    def figures(rmse: float, **more: float) -> dict[str, Any]:
        model = {"rmse": rmse, "sre": 25.5, "uiq": 0.98765, **more}
        return {"model": model, "bicubic": {**model, "rmse": 100.0}, "ratio": rmse / 100}

    bands = {"B05": figures(31.0), "B12": figures(35.06)}
    recorder.outputs = {"task": "20m", "pixels": 12345, "bands": bands, "mean": figures(33.03, sam=1.25)}
    lines = s2sr("evaluate", "sharpen_20m", "a.SAFE").stdout.splitlines()
    assert lines[0].strip() == "sharpen_20m on a.SAFE"
    rows = [line.split() for line in lines]
    assert ["B12", "35.1", "100.0", "25.50", "25.50", "0.9877", "0.9877", "0.351"] in rows
    assert ["all", "33.0", "100.0", "25.50", "25.50", "1.250", "1.250", "0.9877", "0.9877", "0.330"] in rows
    assert "12,345 pixels" in lines[-1]


def similarity(bands: list[str]) -> dict[str, Any]:
    def entry(title: str, total: float | None, unit: str, own: bool = True, **more: str) -> dict[str, Any]:
        each = dict.fromkeys(bands, total) if own else None
        return {"title": title, "total": total, "bands": each, "unit": unit, **more}

    return {
        **{"bands": bands, "pixels": 12345, "definition": "reference", "unit": "values as stored"},
        "data_range": 10000.0,
        "data_range_from": "the bands' scale (0.0001)",
        "shift": [0.125, -2.0],
        "measures": {
            "rmse": entry("RMSE", 123.456, "values as stored"),
            "psnr": entry("PSNR", None, "dB", note="infinite where the images are equal"),
            "ssim": entry("SSIM", 0.987654, ""),
            "sam": entry("SAM", 1.23456, "°", own=False),
            "uiq": entry("UIQ", None, "", note="not defined where nothing can be measured"),
        },
    }


def test_a_comparison_is_a_table(recorder: Recorder) -> None:
    recorder.outputs = similarity(["B02", "B8A"])
    result = s2sr("similarity", "ref.tif", "img.tif", "--json", "f.json", "--map", "m.tif")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    rows = [line.split() for line in lines]
    assert lines[0].strip() == "img.tif compared with ref.tif"
    assert rows[1:7] == [
        ["all", "B02", "B8A"],
        ["RMSE", "123.5", "123.5", "123.5"],
        ["PSNR", "dB", "∞", "∞", "∞"],
        ["SSIM", "0.9877", "0.9877", "0.9877"],
        ["SAM", "°", "1.235"],
        ["UIQ", "–", "–", "–"],
    ]
    assert lines[7] == (
        "12,345 pixels; definition: reference; data range 10000, from the bands' scale (0.0001); values as stored"
    )
    shift = "Shift onto the reference: +0.125 px right, -2.000 px down"
    assert lines[8:] == [shift, "Figures in f.json", "Map in m.tif"]


def test_bands_that_do_not_fit_a_terminal_are_left_to_the_files(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.outputs = similarity([f"B{n:02}" for n in range(40)])
    console = Console(record=True, width=200, file=StringIO())
    monkeypatch.setattr("training_cli.report.console", lambda: console)
    s2sr("similarity", "ref.tif", "img.tif")
    text = console.export_text()
    assert [line.split() for line in text.splitlines()][1:3] == [["all"], ["RMSE", "123.5"]]
    assert "--report" in text


def test_training_is_shown_by_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(job: Any, progress: Progress) -> dict[str, Any]:
        for epoch in (1, 2):
            progress.metric(epoch=epoch, loss=0.5 / epoch, samples_per_s=1234.0)
            progress.metric(epoch=epoch, valid_rmse=60.0 / epoch, seconds_left=3725.0)
        return {"run": "r"}

    monkeypatch.setattr(jobs, "run", run)
    lines = s2sr("train", "d", "-o", "r").stderr.splitlines()
    assert "epoch 1  loss 0.5  samples/s 1234  valid RMSE 60  time left 1:02:05" in lines
    assert "epoch 2  loss 0.25  samples/s 1234  valid RMSE 30  time left 1:02:05" in lines


def test_the_live_view_has_one_row_an_epoch() -> None:
    from training_cli.session import ROWS, TerminalProgress

    console = Console(record=True, force_terminal=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    with TerminalProgress(console, live=True) as progress:
        for epoch in range(1, 15):
            progress.metric(epoch=epoch, loss=1.0)
            progress.metric(epoch=epoch, valid_rmse=abs(epoch - 9) + 0.25)
    rows = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert rows[-ROWS - 1] == ["epoch", "loss", "valid", "RMSE"]
    assert rows[-ROWS:] == [[str(e), "1", f"{abs(e - 9) + 0.25:.4g}"] for e in range(5, 15)]


def test_a_network_option_that_cannot_be_read_is_a_sentence(recorder: Recorder) -> None:
    result = s2sr("train", "data", "-o", "run", "--network-option", "guides=[1")
    assert (result.exit_code, recorder.jobs) == (2, [])
    assert "The value of 'guides=[1' cannot be read; write a number, true, false or a list" in result.stderr
