"""Find scenes: those of a STAC catalogue over an area and a period, with the least cloud over the area first."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..errors import InputError, S2SRError
from ..jobs import SearchScenesJob
from ..progress import Progress
from ..raster.targets import check_outputs
from .catalog import Item, catalog_url, find_items
from .cloud import AreaCloud, area_cloud
from .found import Found, check_suffix, write_found
from .roi import Area, area_of
from .stac import asset_addresses, item_facts, scl_file

_READERS = 4
_GIVE_UP = 4
"""Classifications that may fail, none having been read, before the rest is left alone."""

_PATIENCE = 30.0
"""Seconds without any classification read before the rest is left alone."""


def search_scenes(job: SearchScenesJob, progress: Progress) -> dict[str, Any]:
    """Search, write the footprints, and return what was found.

    ``best`` is the item's address of the best scene, ``best_id`` its name, with ``cloud``, ``area_cloud`` and
    ``area_nodata`` in percent (None where not known); ``scenes``: a row of attributes for each scene, best first.
    """
    target = job.output.expanduser()
    check_suffix(target)
    check_outputs([target], inputs=[job.area])
    scenes = find(job, progress)
    write_found(scenes, target)
    progress.artifact("output", str(job.output))
    progress.progress(100, "Done")
    best = scenes[0]
    return {
        "output": str(job.output),
        "count": len(scenes),
        "best": best.source,
        "best_id": best.id,
        "cloud": best.cloud,
        "area_cloud": best.area_cloud,
        "area_nodata": best.area_nodata,
        "scenes": [scene.row() for scene in scenes],
    }


def find(job: SearchScenesJob, progress: Progress) -> list[Found]:
    """The scenes that a search finds, at least one, best first; ``job.output`` is not touched.

    Best has the least of cloud, cloud shadow and nodata over the area, then over the whole scene; scenes whose
    classification could not be read come last. Raises `InputError`, also when there is no such scene.
    """
    url, period, area = catalog_url(job.catalog), _period(job.start, job.end), area_of(job.area)
    boxes = area.boxes()
    progress.progress(0, f"Asking {job.catalog}")
    items, more = find_items(url, job.collection, boxes, period, job.max_cloud, job.limit, progress)
    where = f"over {job.area} from {job.start} to {job.end}"
    if not items:
        raise InputError(
            f"{job.catalog} has no scene of {job.collection} {where} with at most {job.max_cloud:g} % cloud; allow a "
            "longer period or more cloud, or check area and collection."
        )
    if more:
        progress.log(
            f"There are more than {job.limit} scenes {where}; only the first {job.limit} that {job.catalog} gave are "
            "looked at: raise the limit, or choose a shorter period.",
            "warning",
        )
    known, unknown = _split(_with_area_cloud(items, job.catalog, url, area, progress))
    covering = [scene for scene in known if scene.area_nodata != 100]
    if not covering and not unknown:
        raise InputError(
            f"None of the {len(known)} scenes found {where} has pixels over the area; allow a longer period."
        )
    scenes = sorted(covering, key=_rank)
    clear = [scene for scene in scenes if (scene.unusable or 0) <= job.max_area_cloud]
    if job.max_area_cloud == 100:
        clear += sorted(unknown, key=_rank)
    if not clear:
        clearest = f"the best, {scenes[0].id}, has {scenes[0].unusable:g} %" if scenes else "none could be looked at"
        raise InputError(
            f"None of the {len(items)} scenes found {where} has at most {job.max_area_cloud:g} % cloud, cloud shadow "
            f"and nodata over the area ({clearest}); allow more, or a longer period."
        )
    return clear[: job.best]


def _period(start: str, end: str) -> tuple[str, str]:
    days = []
    for text in (start, end):
        try:
            days.append(datetime.strptime(text.strip(), "%Y-%m-%d").date())
        except ValueError as error:
            raise InputError(f"'{text}' is no date; write year, month and day as 2022-06-15.") from error
    if days[0] > days[1]:
        raise InputError(f"The dates are the wrong way round: the search starts on {start} and ends on {end}.")
    return f"{days[0].isoformat()}T00:00:00Z", f"{days[1].isoformat()}T23:59:59Z"


def _split(scenes: Iterable[Found]) -> tuple[list[Found], list[Found]]:
    known: list[Found] = []
    unknown: list[Found] = []
    for scene in scenes:
        (unknown if scene.unusable is None else known).append(scene)
    return known, unknown


def _rank(scene: Found) -> tuple[float, float, float]:
    """Sorting key; among equals the newer processing first, as catalogues keep reprocessed scenes beside old ones."""
    baseline = scene.baseline or ""
    age = -float(baseline) if baseline.replace(".", "", 1).isdigit() else 0.0
    whole = 100.0 if scene.cloud is None else scene.cloud
    return (scene.unusable or 0.0, whole, age)


def _found(item: Item, catalog: str, url: str) -> Found:
    links = (str(link.get("href")) for link in item.get("links", []) if link.get("rel") == "self")
    # A static copy's own address may be a bucket's (s3://), which is no web address.
    own = next((link for link in links if link.startswith(("http://", "https://"))), None)
    source = own or f"{url}/collections/{item.get('collection')}/items/{item.get('id')}"
    facts = item_facts(item, source)
    cloud = item["properties"].get("eo:cloud_cover")
    return Found(
        id=str(item.get("id")),
        source=source,
        catalog=catalog,
        collection=str(item.get("collection")),
        acquired=facts.acquired,
        cloud=None if cloud is None else round(float(cloud), 3),
        baseline=facts.baseline,
        platform=facts.platform,
        geometry=item.get("geometry") or _rectangle(item.get("bbox")),
        assets=asset_addresses(item, source),
    )


def _rectangle(bbox: Any) -> dict[str, Any] | None:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    w, s, e, n = bbox
    return {"type": "Polygon", "coordinates": [[[w, s], [e, s], [e, n], [w, n], [w, s]]]}


def _with_area_cloud(items: list[Item], catalog: str, url: str, area: Area, progress: Progress) -> list[Found]:
    """The scenes with their cloud over the area where it can be read; what cannot be read is said in the log."""
    scenes = [_found(item, catalog, url) for item in items]
    readers = ThreadPoolExecutor(_READERS)
    pending: dict[Future[AreaCloud | None], int] = {
        readers.submit(_look, item, scene.source, area): index
        for index, (item, scene) in enumerate(zip(items, scenes, strict=True))
    }
    failures: list[str] = []
    heard = time.monotonic()
    try:
        while pending:
            progress.check()
            done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                index = pending.pop(future)
                try:
                    seen = future.result()
                except S2SRError as error:
                    failures.append(f"{scenes[index].id}: {error}")
                    continue
                heard = time.monotonic()
                if seen:
                    scenes[index] = replace(scenes[index], area_cloud=seen.cloud, area_nodata=seen.nodata)
            share = 1 - len(pending) / len(scenes)
            progress.progress(10 + 85 * share, f"Looking for clouds over the area, scene {len(scenes) - len(pending)}")
            if len(failures) >= _GIVE_UP and all(scene.unusable is None for scene in scenes):
                break
            if pending and time.monotonic() - heard > _PATIENCE:
                failures.extend(f"{scenes[index].id}: no answer in {_PATIENCE:g} s." for index in pending.values())
                break
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
    if all(scene.unusable is None for scene in scenes):
        why = failures[0] if failures else f"{scenes[0].id} has no scene classification."
        progress.log(f"Scenes are sorted by the cloud over all of each, not over the area: {why}", "warning")
    else:
        for failure in failures:
            progress.log(f"The cloud over the area is not known for {failure}", "warning")
    return scenes


def _look(item: Item, source: str, area: Area) -> AreaCloud | None:
    file = scl_file(item, source)
    return area_cloud(file, area) if file else None
