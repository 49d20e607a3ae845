"""Signatures of addresses: kept while they hold, renewed in bounded time, and a sentence where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from planetary_computer import sas
from stac_server import StacServer, running_server
from tokens import stand_in

from s2sr_qgis.core import progress
from s2sr_qgis.core.errors import Cancelled, InputError
from s2sr_qgis.core.scene import signing

PLAIN = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/31/B02.tif"
SAS = "st=2023-01-01T00%3A00%3A00Z&se={end}&sp=rl&sv=2021-06-08&sr=c&skoid=a-b&sig=abc%3D"


def signed(hours: float, form: str = "%Y-%m-%dT%H%%3A%M%%3A%SZ") -> str:
    end = datetime.now(timezone.utc) + timedelta(hours=hours)
    return f"{PLAIN}?{SAS.format(end=end.strftime(form))}"


class Log(progress.Progress):
    def __init__(self, stop: bool = False) -> None:
        self.lines: list[str] = []
        self.stop = stop

    def log(self, text: str, level: progress.Level = "info") -> None:
        self.lines.append(text)

    def cancelled(self) -> bool:
        return self.stop


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "_failures", {})
    monkeypatch.setattr(signing, "_refused", set())
    monkeypatch.setattr(sas, "TOKEN_CACHE", {})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StacServer]:
    with running_server() as server:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{server.url}/token")
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        sas.Settings.get.cache_clear()
        yield server
    sas.Settings.get.cache_clear()


class Fresh:
    token = "NEW"


def test_a_signature_that_holds_is_kept_until_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, Fresh())
    monkeypatch.setattr(signing, "BLOB", ".blob.core.windows.net")
    url = signed(1)
    assert signing.sign(url) == url
    assert not asked
    signing.refuse(url)
    assert signing.sign(url) == f"{PLAIN}?sig=NEW"


@pytest.mark.parametrize("hours", [-20000, -1, 0.005])
@pytest.mark.parametrize("form", ["%Y-%m-%dT%H%%3A%M%%3A%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H%%3A%MZ"])
def test_a_signature_that_ends_is_replaced(monkeypatch: pytest.MonkeyPatch, hours: float, form: str) -> None:
    stand_in(monkeypatch, Fresh())
    monkeypatch.setattr(signing, "BLOB", ".blob.core.windows.net")
    assert signing.sign(signed(hours, form)) == f"{PLAIN}?sig=NEW"


@pytest.mark.parametrize(
    ("query", "end"),
    [
        ("se=2023-01-02T03:04:05Z&sig=a", "2023-01-02 03:04"),
        ("X-Amz-Date=20230102T000000Z&X-Amz-Expires=3600&X-Amz-Signature=a", "2023-01-02 01:00"),
        ("X-Goog-Date=20230102T000000Z&X-Goog-Expires=60", "2023-01-02 00:01"),
        ("Expires=1672628645&Signature=a&Key-Pair-Id=b", "2023-01-02 03:04"),
    ],
)
def test_the_end_of_other_signatures(query: str, end: str) -> None:
    assert signing.expired(f"https://a.b/c.tif?{query}") == f"its signature expired on {end} UTC"


@pytest.mark.parametrize("query", ["", "se=1", "Expires=never", "X-Amz-Date=&X-Amz-Expires=3600", "a=b"])
def test_what_says_no_end(query: str) -> None:
    assert signing.expiry(f"https://a.b/c.tif?{query}") is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, r"refuses a token to read sentinel2l2a01 \(HTTP 403\)"),
        (429, r"throttling \(HTTP 429\)"),
        (503, r"gave no token .* \(HTTP 503\)"),
        (400, r"gave no token .* \(HTTP 400\)"),
    ],
)
def test_a_service_that_refuses(server: StacServer, monkeypatch: pytest.MonkeyPatch, status: int, words: str) -> None:
    monkeypatch.setattr(signing, "PATIENCE", 2.0)
    server.faults = [("/token", status, {})] * 50
    with pytest.raises(InputError, match=words):
        signing.sign(PLAIN)
    asked = len(server.asked)
    with pytest.raises(InputError, match=words):
        signing.sign(PLAIN)
    assert len(server.asked) == asked, "the next band does not wait once more"


def test_a_storage_that_the_service_does_not_know(server: StacServer) -> None:
    server.faults = [("/token", 404, {})] * 4
    assert signing.sign(PLAIN) == PLAIN
    with pytest.raises(InputError, match=r"signature of .*B02\.tif expired on .* UTC, .* get the item again"):
        signing.sign(signed(-5))


def test_a_login_page_instead_of_a_token(server: StacServer) -> None:
    server.faults = [("/token", 200, {"Content-Type": "text/html"})] * 4
    with pytest.raises(InputError, match="login page"):
        signing.sign(PLAIN)


def test_no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be reached .* check the network connection"):
        signing.sign(PLAIN)
    assert time.monotonic() - start < 15


def test_a_slow_service_is_named_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sas, "get_token", lambda *_, **__: time.sleep(30))
    monkeypatch.setattr(signing, "PATIENCE", 1.0)
    monkeypatch.setattr(signing, "FIRST_WORD", 0.3)
    log = Log()
    with progress.running(log), pytest.raises(InputError, match=r"no token .* within 1 s"):
        signing.sign(PLAIN)
    assert len(log.lines) == 1
    assert log.lines[0].startswith("Waiting for a token of Planetary Computer")


def test_the_waiting_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sas, "get_token", lambda *_, **__: time.sleep(30))
    with progress.running(Log(stop=True)), pytest.raises(Cancelled):
        signing.sign(PLAIN)
