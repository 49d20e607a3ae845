"""Addresses that carry a signature: how long it holds, and new ones from Planetary Computer within bounded time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..errors import InputError
from ..progress import current

BLOB = ".blob.core.windows.net"

PATIENCE = 45.0
"""Seconds until a service that gives no token is given up."""

FIRST_WORD = 3.0
"""Seconds until the user reads what is waited for."""

CONNECTS = 3
"""Tries to reach a service that cannot be reached at all."""

_MARGIN = 60.0
"""Seconds that a signature must hold to be used."""

_SAS = frozenset("sv,st,se,sr,sp,sig,spr,sip,ss,srt,sdd,skoid,sktid,skt,ske,sks,skv".split(","))  # noqa: SIM905
"""Parameters of a shared access signature of Azure."""

_refused: set[str] = set()
_failures: dict[str, tuple[float, str]] = {}
_asking = threading.Lock()


def sign(url: str) -> str:
    """An address of Azure's storage with a signature that holds now.

    Its own signature is kept while it holds and was not refused; otherwise Planetary Computer is asked for a token,
    which the library keeps until it is about to expire. Raises `InputError`, `Cancelled`.
    """
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    signed = any(name.lower() == "sig" for name, _ in query)
    if signed and url not in _refused and not _ages(expiry(url)):
        return url
    if signed:
        rest = urlencode([(name, value) for name, value in query if name.lower() not in _SAS])
        plain = urlunsplit(parts._replace(query=rest))
    else:
        plain = url
    if not (parts.hostname or "").endswith(BLOB):
        return url
    account, container = (parts.hostname or "").removesuffix(BLOB), parts.path.strip("/").partition("/")[0]
    token = _token(account, container)
    if token is None:
        if signed and not _ages(expiry(url)):
            return url
        if signed:
            raise InputError(
                f"The signature of {parts.hostname}{parts.path} {_past(expiry(url))}, and Planetary Computer has no "
                "token for that storage; get the item again, with a new signature."
            )
        return plain  # a public container needs none
    return str(token.sign(plain).href)


def refuse(url: str) -> None:
    """The server refused an address: its own signature, and the tokens at hand, are not used again."""
    from planetary_computer import sas

    _refused.add(url)
    sas.TOKEN_CACHE.clear()


def expiry(url: str) -> datetime | None:
    """When the signature of an address ends (Azure, Amazon, Google, CloudFront); None where it does not say so."""
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    if "se" in query and "sig" in query:
        return _time(query["se"])
    for provider in ("amz", "goog"):
        start, seconds = _time(query.get(f"x-{provider}-date", "")), query.get(f"x-{provider}-expires", "")
        if start and seconds.isdecimal() and len(seconds) < 10:
            return start + timedelta(seconds=int(seconds))
    seconds = query.get("expires", "")
    if seconds.isdecimal() and 9 <= len(seconds) < 12:
        return datetime.fromtimestamp(int(seconds), timezone.utc)
    return None


def expired(url: str) -> str:
    """What to say of an address whose signature has ended; empty where it has not, or does not say so."""
    end = expiry(url)
    return f"its signature {_past(end)}" if end and end < datetime.now(timezone.utc) else ""


def _past(end: datetime | None) -> str:
    return f"expired on {end:%Y-%m-%d %H:%M} UTC" if end else "has expired"


def _ages(end: datetime | None) -> bool:
    return end is not None and (end - datetime.now(timezone.utc)).total_seconds() < _MARGIN


def _time(text: str) -> datetime | None:
    text = re.sub(r"\.\d+", "", text.strip())
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d", "%Y%m%dT%H%M%SZ"):
        try:
            found = datetime.strptime(text, form)
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
    return None


def _token(account: str, container: str) -> Any:
    """The library's token; None where the service knows no such storage."""
    key = f"{account}/{container}"
    while not _asking.acquire(timeout=0.2):
        current().check()
    try:
        since, sentence = _failures.get(key, (0.0, ""))
        if sentence and time.monotonic() - since < _MARGIN:
            raise InputError(sentence)  # other bands, and other threads, do not wait once more
        try:
            return _ask(account, container)
        except InputError as error:
            _failures[key] = (time.monotonic(), str(error))
            raise
    finally:
        _asking.release()


def _ask(account: str, container: str) -> Any:
    import requests
    from planetary_computer import sas
    from planetary_computer.settings import Settings

    host = urlsplit(Settings.get().sas_url).hostname or "planetarycomputer.microsoft.com"
    what = f"a token of Planetary Computer ({host})"
    end, pause, connects = time.monotonic() + PATIENCE, 0.5, 0
    while True:
        try:
            # Its own retries have no bound in time, and say nothing.
            return wait_for(lambda: sas.get_token(account, container, retry_total=0), what, end)
        except TimeoutError as error:
            raise InputError(
                f"{host} gave no token to read {account} within {PATIENCE:.0f} s; check the network and its proxy, or "
                "try again later."
            ) from error
        except ValueError as error:  # no JSON, or none of a token
            raise InputError(
                f"{host} answered with something other than a token to read {account}; a proxy or a login page of the "
                "network may be in the way."
            ) from error
        except requests.RequestException as error:
            status = _status(error)
            if status == 404:
                return None
            if status in (401, 403):
                raise InputError(
                    f"{host} refuses a token to read {account} (HTTP {status}); check PC_SDK_SUBSCRIPTION_KEY where "
                    "you have set it, and the network's proxy."
                ) from error
            connects += status is None
            over = time.monotonic() + pause > end
            if over or connects >= CONNECTS or (status is not None and status != 429 and status < 500):
                raise InputError(_sentence(host, account, status)) from error
        _sleep(pause)
        pause = min(2 * pause, 8.0)


def _sentence(host: str, account: str, status: int | None) -> str:
    if status is None:
        return (
            f"{host} cannot be reached for a token to read {account}; check the network connection and its proxy, or "
            "download the scene and open the files."
        )
    if status == 429:
        return f"{host} is throttling (HTTP 429): it gave no token to read {account}; try again in some minutes."
    return f"{host} gave no token to read {account} (HTTP {status}); try again later."


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    # With its retries at an end, requests tells the status in words only.
    found = re.search(r"too many (\d{3}) error responses", str(error))
    return int(found.group(1)) if found else None


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        current().check()
        time.sleep(0.1)


def wait_for(work: Callable[[], Any], what: str, end: float) -> Any:
    """Do ``work`` on a thread that may be left behind; say what is waited for, and let the user stop the waiting.

    ``end``: by `time.monotonic`. Raises `TimeoutError` then, `Cancelled`, and what the work raises.
    """
    results: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    word = time.monotonic() + FIRST_WORD
    while True:
        thread.join(0.1)
        if failed:
            raise failed[0]
        if results:
            return results[0]
        progress = current()
        progress.check()
        now = time.monotonic()
        if now > end:
            raise TimeoutError(what)
        if now > word:
            word = float("inf")
            progress.log(f"Waiting for {what} ...")
