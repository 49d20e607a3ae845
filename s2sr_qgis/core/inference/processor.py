"""Whether this processor multiplies 8-bit numbers faster than floats.

That needs instructions for dot products of bytes: AVX-512 VNNI, AVX-VNNI or AMX on x86, `dotprod` or `i8mm` on ARM.
ONNX Runtime uses them where they are there, but does not say so.
"""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
"""As Linux names them."""

INTEL = frozenset({
    0x6A, 0x6C, 0x7D, 0x7E, 0x8C, 0x8D, 0xA7,  # Ice Lake, Tiger Lake, Rocket Lake
    0x97, 0x9A, 0xBE, 0xB7, 0xBA, 0xBF,  # Alder Lake, Raptor Lake
    0xAA, 0xAC, 0xB5, 0xC5, 0xC6, 0xBD, 0xCC,  # Meteor, Arrow, Lunar and Panther Lake
    0x8F, 0xCF, 0xAD, 0xAE, 0xAF,  # Sapphire, Emerald and Granite Rapids, Sierra Forest
})  # fmt: skip
"""Models of Intel's family 6 with VNNI, numbered as in Linux' intel-family.h; all later families have it."""

ZEN4 = frozenset({0x1, 0x6, 0x7, 0x8, 0x9, 0xA})
"""Models of AMD's family 25 with AVX-512 VNNI, divided by 16; the others are Zen 3. All later families have it."""

ARM_DOT_PRODUCTS = 43
"""PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE of Windows' IsProcessorFeaturePresent."""


@cache
def has_dot_products() -> bool:
    """Whether the processor of this machine has them; False where that cannot be told."""
    system, arm = platform.system(), platform.machine().lower() in ("arm64", "aarch64")
    if system == "Linux":
        try:
            return in_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return False
    if system == "Darwin":
        return arm  # every Apple processor; ONNX Runtime no longer comes for Intel Macs
    if system == "Windows":
        return _windows_arm() if arm else in_identifier(platform.processor())
    return False


def in_cpuinfo(text: str) -> bool:
    """Whether the text of /proc/cpuinfo, of x86 or ARM, names such instructions for every processor that it lists."""
    lines = [line.split(":", 1)[1].split() for line in text.splitlines() if re.match(r"(flags|Features)\s*:", line)]
    return bool(lines) and all(FLAGS.intersection(line) for line in lines)


def in_identifier(text: str) -> bool:
    """Whether the x86 processor has them that Windows calls 'Intel64 Family 6 Model 154 Stepping 3, GenuineIntel'.

    Windows tells programs neither of VNNI nor of AMX.
    """
    found = re.search(r"Family (\d+) Model (\d+) Stepping (\d+), (\w+)", text)
    if not found:
        return False
    family, model, stepping = (int(number) for number in found.groups()[:3])
    if found[4] == "GenuineIntel":
        cascade_lake = model == 0x55 and stepping >= 5  # earlier steppings are Skylake
        return family > 15 or (family == 6 and (model in INTEL or cascade_lake))
    if found[4] == "AuthenticAMD":
        return family > 25 or (family == 25 and model // 16 in ZEN4)
    return False


def _windows_arm() -> bool:
    import ctypes

    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # mypy on other systems does not know it
    return bool(kernel.IsProcessorFeaturePresent(ARM_DOT_PRODUCTS))
