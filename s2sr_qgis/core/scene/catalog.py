"""Asking a STAC API for items: pages, retries with back-off, and refusals told in one sentence."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from urllib3 import Retry

from ..errors import InputError
from ..progress import Progress
from .roi import Bounds

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

CATALOGS = {
    "planetary-computer": "https://planetarycomputer.microsoft.com/api/stac/v1",
    "earth-search": "https://earth-search.aws.element84.com/v1",
    "copernicus": "https://stac.dataspace.copernicus.eu/v1",
}
"""Catalogues that have a name, and their APIs."""

BACK_OFF = 0.5
"""Seconds before the third try; each further one waits twice as long."""

_RETRIES, _CONNECTS = 5, 3
_LONGEST_WAIT = 60.0
_TIMEOUT = (15, 60)
_PAGE = 100
_BUSY = (429, 500, 502, 503, 504)
_CLOUD = "eo:cloud_cover"

Item = dict[str, Any]


class _Patience(Retry):
    """urllib3's retries, but nobody waits longer than a minute at a time, and the user can stop the waiting."""

    check: Callable[[], None] = staticmethod(lambda: None)

    def new(self, **changes: Any) -> _Patience:
        """The next try's copy."""
        copy = super().new(**changes)
        copy.check = self.check
        return copy

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait as the server asks, or as long as the back-off says."""
        wait = (self.get_retry_after(response) if response else None) or self.get_backoff_time()
        end = time.monotonic() + min(wait, _LONGEST_WAIT)
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(0.2, left))


def catalog_url(name: str) -> str:
    """The address of a catalogue's API from its name, or the address itself. Raises `InputError`."""
    if name in CATALOGS:
        return CATALOGS[name]
    if re.match(r"^https?://[^/]+", name, re.IGNORECASE):
        return name.rstrip("/")
    raise InputError(
        f"'{name}' is no catalogue that is known here; give {', '.join(CATALOGS)}, or the URL of a STAC API."
    )


def find_items(
    url: str,
    collection: str,
    boxes: list[Bounds],
    period: tuple[str, str],
    max_cloud: float,
    limit: int,
    progress: Progress,
) -> tuple[list[Item], bool]:
    """Items of a collection over boxes (degrees) within a period (ISO times), and whether there are more of them.

    Items with more cloud than ``max_cloud`` percent are left out, whether the API can filter or not; an item that does
    not state its cloud stays. Raises `InputError`.
    """
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO

    found: list[Item] = []
    with _told(url, progress):
        patience = _Patience(
            total=_RETRIES,
            connect=_CONNECTS,
            backoff_factor=BACK_OFF,
            status_forcelist=_BUSY,
            allowed_methods=None,  # a search by POST changes nothing, so it may be repeated
            raise_on_status=False,
        )
        patience.check = progress.check  # type: ignore[method-assign]
        client = Client.open(url, stac_io=StacApiIO(timeout=_TIMEOUT, max_retries=patience))
        search = client.search(
            method=_method(client),
            collections=[collection],
            datetime="/".join(period),
            limit=min(_PAGE, limit),
            **_place(boxes),
            **_cloud_filter(client, max_cloud),
        )
        for page in search.pages_as_dicts():
            progress.check()
            for item in page["features"]:
                if (item["properties"].get(_CLOUD) or 0) > max_cloud:
                    continue
                if len(found) == limit:
                    return found, True
                found.append(item)
            progress.progress(10, f"{len(found)} scenes found")
    return found, False


def _method(client: Any) -> str:
    """POST where the API takes it: bodies have no length limit, addresses have."""
    methods = {link.extra_fields.get("method") or "GET" for link in client.get_links("search")}
    return "POST" if "POST" in methods or not methods else "GET"


def _place(boxes: list[Bounds]) -> dict[str, Any]:
    if len(boxes) == 1:
        return {"bbox": list(boxes[0])}
    rings = [[[w, s], [e, s], [e, n], [w, n], [w, s]] for w, s, e, n in boxes]
    return {"intersects": {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}}


def _cloud_filter(client: Any, max_cloud: float) -> dict[str, Any]:
    if client.conforms_to("QUERY"):
        return {"query": {_CLOUD: {"lte": max_cloud}}}
    if client.conforms_to("FILTER"):
        return {"filter": {"op": "<=", "args": [{"property": _CLOUD}, max_cloud]}, "filter_lang": "cql2-json"}
    return {}


@contextmanager
def _told(url: str, progress: Progress) -> Iterator[None]:
    """Turn what pystac-client raises into an `InputError` for the user."""
    from pystac import STACError, STACTypeError
    from pystac_client.errors import ClientTypeError
    from pystac_client.exceptions import APIError
    from pystac_client.warnings import PystacClientWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PystacClientWarning)
            yield
    except APIError as error:
        # pystac-client makes an APIError of whatever happens in a request, the user's stop included.
        progress.check()
        raise InputError(_refusal(url, getattr(error, "status_code", None), str(error))) from error
    except (STACError, STACTypeError, ClientTypeError, NotImplementedError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{url} is no STAC API that can be searched; check the address.") from error


def _refusal(url: str, status: int | None, text: str) -> str:
    host = urlsplit(url).hostname or url
    if status is None:
        why = " (its certificate is not trusted)" if "certificate" in text.lower() else ""
        return f"{host} cannot be reached{why}; check the network and the address {url}."
    if status in (401, 403):
        return (
            f"{host} refuses access (HTTP {status}); it needs credentials that are valid: put them into the file "
            ".netrc of your home folder, or choose another catalogue."
        )
    if status == 429:
        return (
            f"{host} is throttling (HTTP 429) and did not give way after {_RETRIES} retries; wait some minutes, or ask "
            "for a shorter period."
        )
    if status >= 500:
        return f"{host} is out of order (HTTP {status} after {_RETRIES} retries); try again later."
    if status == 404:
        return f"{url} is no STAC API that can be searched (HTTP 404); check the address."
    return f"{host} did not take the query (HTTP {status}: {' '.join(text.split())[:150]}); check its options."
