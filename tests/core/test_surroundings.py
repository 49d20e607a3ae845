"""What other installations, consoles and schedulers do to the command line and the worker, in real processes."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from products import make_stack

from s2sr_qgis.core import processors, variables
from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.jobs import parse

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "s2sr_qgis" / "core" / "worker.py"
SET = ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHONIOENCODING", "PYTHONUTF8", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA")


def s2sr(*arguments: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in SET}
    command = [sys.executable, "-c", "from training_cli.main import app; app()", *map(os.fsencode, map(str, arguments))]
    path = os.pathsep.join(filter(None, (str(ROOT), variables.pop("PYTHONPATH", ""))))
    return subprocess.run(
        command, capture_output=True, cwd=cwd, env={**environment, "PYTHONPATH": path, **variables}, timeout=120
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stack(tmp_path_factory.mktemp("input") / "in.tif", 60, bands=("B02", "B03", "B04", "B08"))


def old_proj(folder: Path) -> str:
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "proj.db")) as database:
        database.execute("CREATE TABLE metadata(key TEXT, value TEXT)")
        database.execute("INSERT INTO metadata VALUES ('DATABASE.LAYOUT.VERSION.MAJOR', '1')")
        database.commit()
    return str(folder)


@pytest.mark.parametrize(
    "foreign",
    [
        {"PROJ_LIB": "/nonexistent", "PROJ_DATA": "/nonexistent", "GDAL_DATA": "/nonexistent"},
        {"PROJ_LIB": "OLD"},
        {"GDAL_DRIVER_PATH": "/nonexistent", "GDAL_SKIP": "GTiff,VRT", "OGR_SKIP": "GeoJSON"},
        {"GTIFF_POINT_GEO_IGNORE": "YES", "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"},
        {"TIFF_USE_OVR": "YES", "USE_RRD": "YES", "COMPRESS_OVERVIEW": "JPEG", "GDAL_TIFF_OVR_BLOCKSIZE": "7"},
        {
            "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".x",
            "PROJ_NETWORK": "ON",
            "OSR_USE_NON_DEPRECATED": "NO",
        },
    ],
    ids=lambda foreign: "+".join(foreign),
)
def test_another_gdal(stack: Path, tmp_path: Path, foreign: dict[str, str]) -> None:
    old = old_proj(tmp_path / "old")
    foreign = {name: old if value == "OLD" else value for name, value in foreign.items()}
    done = s2sr("super-resolve", stack, "-o", tmp_path / "o.tif", "--bands", "B02", **foreign)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"old", "o.tif"}
    with rasterio.open(tmp_path / "o.tif") as output, rasterio.open(stack) as source:
        assert output.crs == source.crs
        assert output.transform == source.transform
        assert np.array_equal(output.read(1), source.read(1))


@pytest.mark.parametrize("package", ["numpy", "rasterio", "typer"])
def test_packages_of_another_python(stack: Path, tmp_path: Path, package: str) -> None:
    (tmp_path / "site" / package).mkdir(parents=True)
    (tmp_path / "site" / package / "__init__.py").write_text("raise ImportError('built for another Python')")
    done = s2sr("super-resolve", stack, "-o", tmp_path / "o.tif", "--bands", "B02", PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr


def test_the_worker_in_spite_of_another_gdal(stack: Path, tmp_path: Path) -> None:
    job = {"job": "super_resolve", "scene": str(stack), "output": str(tmp_path / "o.tif"), "bands": ["B02"]}
    environment = {**os.environ, "PROJ_LIB": "/nonexistent", "GDAL_SKIP": "GTiff", "PYTHONPATH": str(tmp_path / "site")}
    (tmp_path / "site" / "numpy").mkdir(parents=True)
    (tmp_path / "site" / "numpy" / "__init__.py").write_text("raise ImportError('built for another Python')")
    with subprocess.Popen(
        [sys.executable, "-s", "-u", "-X", "utf8", WORKER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()  # its end would cancel the job
        events = [json.loads(line) for line in process.stdout]
    assert events[-1]["event"] == "result", events


def test_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"GDAL_HTTP_PROXY": "p", "GDAL_CACHEMAX": "64", "CPL_DEBUG": "ON", "AWS_REGION": "eu", "VSI_CACHE": "YES",
            "PROJ_DATA": f"{sys.prefix}/share/proj"}  # fmt: skip
    monkeypatch.delenv("GDAL_MEM_ENABLE_OPEN", raising=False)  # of a test before, that looked for Orfeo ToolBox
    for name, value in {**kept, "GDAL_DATA": "/other", "GTIFF_SRS_SOURCE": "EPSG"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(variables, "_dropped", {})
    assert variables.drop_foreign() == ["GDAL_DATA", "GTIFF_SRS_SOURCE"]
    assert {name: os.environ.get(name) for name in kept} == kept
    variables.restore_foreign()
    assert os.environ["GDAL_DATA"] == "/other"


def test_libraries_of_another_installation_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/conda/lib")
    error = ImportError("/opt/conda/lib/libstdc++.so.6: version `GLIBCXX_3.4.29' not found", name="rasterio._base")
    sentence = variables.import_sentence(error)
    assert sentence.startswith("rasterio cannot be loaded")
    assert "LD_LIBRARY_PATH=/opt/conda/lib" in sentence


CONSOLES = [
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "cp932"},
]


@pytest.mark.parametrize("console", CONSOLES, ids=lambda console: next(iter(console.values())))
def test_a_console_that_lacks_characters(stack: Path, tmp_path: Path, console: dict[str, str]) -> None:
    target = tmp_path / "né_结果.tif"
    done = s2sr("super-resolve", stack, "-o", target, "--bands", "B02", **console)
    assert done.returncode == 0, done.stderr
    assert target.exists()
    done = s2sr("similarity", stack, target, "--bands", "B02", **console)
    assert b"Traceback" not in done.stderr
    assert b"UnicodeEncodeError" not in done.stderr


@pytest.mark.parametrize(
    ("command", "console"),
    [
        ("models", {"COLUMNS": "20"}),
        ("models", {"FORCE_COLOR": "1"}),
        ("models", {"PYTHONIOENCODING": "ascii"}),
        ("check", {"COLUMNS": "20", "PYTHONIOENCODING": "ascii"}),
    ],
)
def test_names_are_whole_in_pipes(command: str, console: dict[str, str]) -> None:
    done = s2sr(command, **console)
    assert done.returncode == 0, done.stderr
    for name in (b"sharpen_20m_fast", b"sharpen_60m_fast"):
        assert name in done.stdout
    assert "…".encode() not in done.stdout


def test_a_log_has_no_control_sequences(stack: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("a_long_name_of_a_folder_" * 5)
    folder.mkdir()
    done = s2sr("super-resolve", stack, "-o", folder / "o.tif", "--bands", "B02", COLUMNS="40", TERM="xterm-256color")
    assert b"\x1b" not in done.stdout + done.stderr
    assert str(folder / "o.tif").encode() in done.stdout
    done = s2sr("super-resolve", stack, "-o", folder / "o.tif", "--bands", "B02", FORCE_COLOR="1")
    for control in (b"\x1b[?25l", b"\x1b[2K", b"\x1b[1A", b"\r"):
        assert control not in done.stdout + done.stderr, "colours are what FORCE_COLOR means, a moving bar is not"


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
@pytest.mark.parametrize("command", [
    "super-resolve IN -o BAD.tif", "super-resolve BAD.tif -o o.tif", "super-resolve IN -o o.tif --roi BAD.gpkg",
    "similarity IN BAD.tif", "evaluate sharpen_20m IN --json BAD.json", "simulate BAD.tif -o o.tif",
    "search 1,2,3,4 --start 2022-01-01 --end 2022-01-02 -o BAD.gpkg",
])  # fmt: skip
def test_a_name_that_is_not_utf8(stack: Path, tmp_path: Path, command: str) -> None:
    bad = os.fsdecode(b"r\xff\xe9sultat")
    given = [str(stack) if word == "IN" else word.replace("BAD", bad) for word in command.split()]
    done = s2sr(*given, cwd=tmp_path)
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr
    assert b"\\udcff" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["~nobody_of_this_name/o.tif", "a\0b.tif", "x" * 300, "a/" + "é" * 128 + "/o.tif"])
def test_a_name_that_names_nothing(name: str) -> None:
    parse({"job": "super_resolve", "scene": f"https://a/{'x' * 300}", "output": "o.tif", "roi": "POLYGON((1 1))" * 99})
    with pytest.raises(InputError, match="The option 'output'"):
        parse({"job": "super_resolve", "scene": "s.tif", "output": name})


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity")
@pytest.mark.parametrize(
    ("files", "given", "expected"),
    [
        ({}, {}, 8),
        ({}, {"SLURM_CPUS_PER_TASK": "3"}, 3),
        ({}, {"NSLOTS": "5", "SLURM_CPUS_PER_TASK": "none"}, 5),
        ({"cgroup": "0::/\n", "root/cpu.max": "150000 100000"}, {}, 2),
        ({"cgroup": "0::/a/b\n", "root/a/b/cpu.max": "max 100000", "root/a/cpu.max": "100000 100000"}, {}, 1),
        ({"cgroup": "0::/../of/the/host\n", "root/cpu.max": "50000 100000"}, {}, 1),
        ({"cgroup": "4:cpu,cpuacct:/docker/1\n", "root/cpu,cpuacct/cpu.cfs_quota_us": "400000",
          "root/cpu,cpuacct/cpu.cfs_period_us": "100000"}, {}, 4),
        ({"cgroup": "4:cpuacct,cpu:/\n", "root/cpu/cpu.cfs_quota_us": "-1",
          "root/cpu/cpu.cfs_period_us": "100000"}, {}, 8),
        ({"cgroup": "nonsense\n1:name=systemd:/x\n", "root/cpu.max": "1 0"}, {}, 8),
    ],
)  # fmt: skip
def test_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], given: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("SLURM_CPUS_PER_TASK", "NSLOTS", "NCPUS", "LSB_DJOB_NUMPROC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    real = processors._quotas
    monkeypatch.setattr(processors, "_quotas", lambda: real(tmp_path / "cgroup", tmp_path / "root"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert processors.available_threads() == expected


def test_threads_of_libraries_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_affinity", lambda: 8)
    monkeypatch.setattr(processors, "_quotas", lambda: [2])
    for name in processors._NATIVE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processors.bound_native_threads()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "2"
    assert os.environ["OMP_NUM_THREADS"] == "1", "what the user set stays"
    for name in processors._NATIVE:
        monkeypatch.setenv(name, "1")  # so that it is taken away in the end
