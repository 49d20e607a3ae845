"""How many processors this process may use: fewer than the machine has on clusters and in containers."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_ALLOTTED = ("SLURM_CPUS_PER_TASK", "NSLOTS", "NCPUS", "LSB_DJOB_NUMPROC")
"""Processors of a job in Slurm, Grid Engine, PBS and LSF."""

_BASE, _THREAD = 3 * 2**30, 2**28
"""Bytes of address space of the libraries with their data, and of a thread with its stack and its share of both."""

_NATIVE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
"""Variables that bound the threads of libraries, which look at the affinity at most."""


def available_threads() -> int:
    """Processors that this process may use, at least 1.

    The least of the affinity (taskset, docker --cpuset-cpus), the quota of control groups (docker --cpus, Kubernetes)
    and what the scheduler of a cluster allotted.
    """
    return min([_affinity(), *_quotas(), *_allotted(), *_by_address_space()])


def bound_native_threads() -> None:
    """Bound the threads of NumPy's and TensorFlow's libraries where quota or scheduler allow fewer than the affinity.

    For a process that is ours alone, before they are imported. What the user set stays.
    """
    count = available_threads()
    if count < _affinity():
        for name in _NATIVE:
            os.environ.setdefault(name, str(count))
    # GDAL waits for ever for threads that it could not start.
    if any(limit == 1 for limit in _by_address_space()):
        os.environ.setdefault("GDAL_NUM_THREADS", "1")


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _by_address_space() -> Iterator[int]:
    """Threads that a limit of the address space (ulimit -v) has room for; nothing where there is none."""
    if sys.platform != "win32":
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            yield max((limit - _BASE) // _THREAD, 1)


def _allotted() -> Iterator[int]:
    for name in _ALLOTTED:
        value = os.environ.get(name, "").strip()
        if value.isdecimal() and int(value) > 0:
            yield int(value)


def _quotas(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Processors that each control group above this process allows, rounded up; nothing where there is no quota."""
    try:
        groups = [line.split(":", 2) for line in proc.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return
    for parts in groups:
        if len(parts) != 3:
            continue
        number, controllers, path = parts
        if number == "0" and not controllers:  # version 2
            folder, read = root, _quota
        elif "cpu" in controllers.split(","):
            folder, read = next((f for f in (root / controllers, root / "cpu") if f.is_dir()), root), _quota_v1
        else:
            continue
        inner = folder.joinpath(*Path(path).parts[1:])
        # In a container the path may be the host's: then only the root is there.
        for group in (inner, *inner.parents):
            quota = read(group)
            if quota:
                yield max(1, math.ceil(quota))
            if group == folder:
                break


def _quota(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota, period = (
            int((group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
