"""No token, password or terminal control leaves the program."""

import pytest

from s2sr_qgis.core.redaction import cleaned, printable, redact

SECRETS = [
    "https://a.blob.core.windows.net/b.tif?se=2026-01-01&sig=SECRETabc%3D",
    "https://user:SECRET@host/item.json",
    "/vsicurl/https://user:SECRET@host/item.tif",
    "https://h/x?X-Amz-Signature=SECRET&X-Amz-Credential=SECRET",
    "https://h/x?a=1&amp;token=SECRET",
    "https://h/x?api_key=SECRET1&subscription-key=SECRET",
    "Authorization: Bearer SECRETSECRET",
    "access_key=SECRETSECRET",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_hidden(text: str) -> None:
    assert "SECRET" not in redact(text)
    assert "SECRET" not in str(cleaned({"a": [text, {"b": text}]}))
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "/home/a/S2A_MSIL2A_20220612.SAFE",
        "/vsizip/{/a/b.zip}/c.jp2",
        "https://h/items/x?limit=3&page=2",
        "C:\\data\\a@b.tif",
        "10.5 DN at EPSG:32631, patch 3 of 4: done",
        "mail@example.org",
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert printable(text) == text


def test_control_characters_become_spaces() -> None:
    assert printable("a\x1b[31mb\x00\x9bc\td\n") == "a [31mb  c\td\n"
