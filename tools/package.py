"""The plugin as a zip for QGIS and plugins.qgis.org: ``build``, ``check`` and ``install``.

Only committed files are packed, with the commit's time, so that two builds of one commit are the same bytes.
"""

from __future__ import annotations

import argparse
import configparser
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "s2sr_qgis"
BESIDE = ("metadata.txt", "LICENSE", "README.md", "CHANGELOG.md")
"""Files of the repository's top level that a plugin carries inside its folder."""
REQUIRED = (
    "name", "description", "version", "qgisMinimumVersion", "author", "email", "about", "tracker", "repository",
)  # fmt: skip
LARGEST = 25_000_000
FORBIDDEN = re.compile(r"(^|/)(__pycache__|__MACOSX|\.git|\.venv)(/|$)|\.pyc$|\\|(^|/)\.\.(/|$)|^/")


def metadata(text: str) -> dict[str, str]:
    """The [general] section of a metadata.txt."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return dict(parser["general"])


def package_path() -> Path:
    """Where the zip of the present version lies."""
    version = metadata((ROOT / "metadata.txt").read_text(encoding="utf-8"))["version"]
    return ROOT / "dist" / f"{PLUGIN}.{version}.zip"


def build() -> Path:
    """Pack the committed files."""
    target = package_path()
    target.parent.mkdir(exist_ok=True)
    moment = time.gmtime(int(_git("log", "-1", "--format=%ct")))[:6]
    with (
        tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", "HEAD", PLUGIN, *BESIDE))) as tar,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed,
    ):
        inside = {m.name if m.name.startswith(f"{PLUGIN}/") else f"{PLUGIN}/{m.name}": m for m in tar if m.isfile()}
        for name, member in sorted(inside.items()):
            stream = tar.extractfile(member)
            content = stream.read() if stream else b""
            if name == f"{PLUGIN}/metadata.txt":
                content = _with_changes(content.decode("utf-8")).encode("utf-8")
            entry = zipfile.ZipInfo(name, moment)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, content)
    print(f"{target.relative_to(ROOT)}  {target.stat().st_size / 1e6:.2f} MB")
    return target


def _with_changes(text: str) -> str:
    """metadata.txt with the newest version's section of the changelog; QGIS shows it in its plugin manager."""
    sections = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    section = next((part for part in sections if "\n- " in part), "")
    lines = [line for line in section.replace("%", "%%").splitlines() if line.strip()]
    return f"{text.rstrip()}\nchangelog=\n" + "".join(f" {line}\n" for line in lines) if lines else text


def problems(path: Path) -> list[str]:
    """What plugins.qgis.org would refuse in a zip, one sentence each."""
    found = []
    if path.stat().st_size > LARGEST:
        found.append(f"{path.name} is larger than {LARGEST / 1e6:.0f} MB")
    with zipfile.ZipFile(path) as packed:
        names = packed.namelist()
        found += [f"'{name}' must not be in a plugin" for name in names if FORBIDDEN.search(name)]
        if {name.split("/")[0] for name in names} != {PLUGIN}:
            found.append(f"everything must lie in one folder, {PLUGIN}")
        missing = [n for n in ("__init__.py", "metadata.txt", "LICENSE") if f"{PLUGIN}/{n}" not in names]
        found += [f"{name} is missing" for name in missing]
        if "metadata.txt" not in missing:
            fields = metadata(packed.read(f"{PLUGIN}/metadata.txt").decode("utf-8"))
            found += [f"metadata.txt lacks '{name}'" for name in REQUIRED if not fields.get(name, "").strip()]
            if "/" in fields.get("author", ""):
                found.append("the author in metadata.txt must have no '/'")
            if fields.get("hasProcessingProvider") != "yes":
                found.append("metadata.txt must say hasProcessingProvider=yes, or qgis_process finds no algorithm")
    return found


def check() -> int:
    """Look at the packed zip as plugins.qgis.org does: its rules, then its security scan."""
    path = package_path()
    found = problems(path)
    for problem in found:
        print(f"{path.name}: {problem}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as packed:
            packed.extractall(folder)
        scan = [sys.executable, "-m", "bandit", "-q", "-s", "B404", "-r", folder]
        bandit = subprocess.run(scan, check=False).returncode
        scan = [sys.executable, "-m", "detect_secrets", "scan", "--all-files", "."]
        secrets = subprocess.run(scan, check=True, cwd=folder, capture_output=True, text=True).stdout
    suspects = {name: [f["line_number"] for f in each] for name, each in json.loads(secrets)["results"].items()}
    for name, lines in suspects.items():
        print(f"{name}: detect-secrets takes the lines {lines} for secrets", file=sys.stderr)
    if found or bandit or suspects:
        return 1
    print(f"{path.name} keeps the rules")
    return 0


def install(profile: Path) -> int:
    """Put the packed plugin into a QGIS profile, in place of an older one."""
    plugins = profile.expanduser() / "python" / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(plugins / PLUGIN, ignore_errors=True)
    with zipfile.ZipFile(package_path()) as packed:
        packed.extractall(plugins)
    print(f"Installed in {plugins / PLUGIN}; enable it in QGIS's plugin manager.")
    return 0


def stage(plugins: Path) -> Path:
    """Copy the working tree's plugin into a folder of plugins, uncommitted changes and all; returns its folder."""
    target = plugins / PLUGIN
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / PLUGIN, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "metadata.txt"))
    for name in BESIDE:
        shutil.copy2(ROOT / name, target / name)
    return target


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=["build", "check", "install"])
    parser.add_argument("--profile", type=Path, help="QGIS profile to install into")
    arguments = parser.parse_args()
    if arguments.action == "build":
        build()
        return 0
    if arguments.action == "check":
        return check()
    if arguments.profile is None:
        parser.error("install needs --profile")
    return install(arguments.profile)


if __name__ == "__main__":
    sys.exit(main())
