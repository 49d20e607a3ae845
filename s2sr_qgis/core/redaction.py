"""What no text that leaves the program may hold: tokens, passwords, and characters that steer a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

HIDDEN = "***"

_NAME = (
    r"(?:sig|se|sp|sr|sv|st|ske|skoid|sktid|skt|sks|skv|auth|authorization|pwd|passwd"
    r"|x-(?:amz|goog)-[\w-]+|awsaccesskeyid"
    r"|[\w.-]*(?:token|signature|secret|password|credential|api[_-]?key|access[_-]?key|subscription[_-]?key))"
)
_QUERY = re.compile(rf"((?:[?&;]|%3f|%26){_NAME}(?:=|%3d))[^&\s\"'<>|,)\]}}]+", re.IGNORECASE)
_WORD = re.compile(
    r"(?<![\w./-])((?:sig|[\w-]*(?:token|signature|secret|password|api[_-]?key|access[_-]?key|subscription[_-]?key)"
    r"|x-amz-[\w-]+)[\"']?\s?[=:]\s?[\"']?)(?=[^\s\"'<>&,;]{8})[^\s\"'<>&,;]+",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_USER = re.compile(r"(\w:/{1,2})[^\s/@\"'<>?#]+@")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def redact(text: str) -> str:
    """A text without tokens, keys and passwords: addresses keep their host and path, and the names of what they had."""
    text = _QUERY.sub(rf"\g<1>{HIDDEN}", text)
    text = _WORD.sub(rf"\g<1>{HIDDEN}", text)
    text = _HEADER.sub(rf"\g<1>{HIDDEN}", text)
    return _USER.sub(rf"\g<1>{HIDDEN}@", text)


def printable(text: str) -> str:
    """A redacted text whose control characters, ESC among them, are spaces; line ends and tabs stay."""
    return redact(_CONTROL.sub(" ", text))


def redacted(value: Any) -> Any:
    """The same with every text in nested mappings and lists redacted."""
    return _each(value, redact)


def yaml_text(value: Any) -> str:
    """Nested mappings and lists as the YAML of our cards, `redacted`, in their own order."""
    return yaml.safe_dump(redacted(value), sort_keys=False, allow_unicode=True, width=110)


def json_text(value: Any) -> str:
    """Nested mappings and lists as the JSON of our results, `redacted`. Raises `ValueError` for NaN and infinity."""
    return json.dumps(redacted(value), indent=2, allow_nan=False) + "\n"


def cleaned(value: Any) -> Any:
    """The same with every text in nested mappings and lists made `printable`."""
    return _each(value, printable)


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _each(part, change) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_each(part, change) for part in value]
    return value
