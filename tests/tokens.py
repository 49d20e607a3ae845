"""Planetary Computer's service of tokens, as a stand-in: for tests that sign addresses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from planetary_computer import sas

from s2sr_qgis.core.scene import signing


class Token:
    """A token as the library has it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def sign(self, href: str) -> Any:
        return SimpleNamespace(href=f"{href}?sig={self.text}")


def stand_in(monkeypatch: pytest.MonkeyPatch, server: Any, stale: str = "") -> list[str]:
    """Let addresses of this machine be signed with ``server.token``; returns the tokens that were asked for.

    ``stale``: a token that the library has already.
    """
    asked: list[str] = []

    def get_token(account: str, container: str, **_: Any) -> Token:
        if "tokens" not in sas.TOKEN_CACHE:
            asked.append(server.token)
            sas.TOKEN_CACHE["tokens"] = Token(server.token)  # type: ignore[assignment]
        return sas.TOKEN_CACHE["tokens"]  # type: ignore[return-value]

    monkeypatch.setattr(sas, "TOKEN_CACHE", {"tokens": Token(stale)} if stale else {})
    monkeypatch.setattr(sas, "get_token", get_token)
    monkeypatch.setattr(signing, "BLOB", "127.0.0.1")
    return asked
