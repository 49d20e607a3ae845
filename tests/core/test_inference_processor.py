import platform

import pytest

from s2sr_qgis.core.inference import processor
from s2sr_qgis.core.inference.processor import has_dot_products, in_cpuinfo, in_identifier

ICE_LAKE = "processor\t: {}\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu vme sse2 avx2 avx512f avx512_vnni\n"
ALDER_LAKE = "processor\t: {}\nflags\t\t: fpu sse2 avx2 avx_vnni serialize\n"
HASWELL = "processor\t: {}\nflags\t\t: fpu vme sse2 fma avx2\n"
GRAVITON = (
    "processor\t: {}\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd evtstrm aes asimdhp asimddp sve\nCPU part\t: 0xd40\n"
)
RASPBERRY_PI_4 = "processor\t: {}\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU part\t: 0xd08\n"


@pytest.mark.parametrize("text", [ICE_LAKE, ALDER_LAKE, GRAVITON])
def test_linux_processors_with_dot_products(text):
    assert in_cpuinfo("\n".join(text.format(core) for core in range(4)))


@pytest.mark.parametrize("text", [HASWELL, RASPBERRY_PI_4, "", "flags\n", "avx512_vnni"])
def test_linux_processors_without(text):
    assert not in_cpuinfo(text)


def test_every_core_must_have_them():
    assert not in_cpuinfo(GRAVITON.format(0) + "\n" + RASPBERRY_PI_4.format(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Intel64 Family 6 Model 154 Stepping 3, GenuineIntel", True),  # Alder Lake
        ("Intel64 Family 6 Model 140 Stepping 1, GenuineIntel", True),  # Tiger Lake
        ("Intel64 Family 6 Model 158 Stepping 10, GenuineIntel", False),  # Coffee Lake
        ("Intel64 Family 6 Model 85 Stepping 4, GenuineIntel", False),  # Skylake
        ("Intel64 Family 6 Model 85 Stepping 7, GenuineIntel", True),  # Cascade Lake
        ("Intel64 Family 15 Model 6 Stepping 4, GenuineIntel", False),  # Pentium 4
        ("Intel64 Family 18 Model 1 Stepping 0, GenuineIntel", True),  # later ones
        ("AMD64 Family 25 Model 33 Stepping 2, AuthenticAMD", False),  # Zen 3
        ("AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", True),  # Zen 4
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", True),  # Zen 5
        ("AMD64 Family 23 Model 113 Stepping 0, AuthenticAMD", False),  # Zen 2
        ("ARMv8 (64-bit) Family 8 Model D4B Revision 0, Qualcomm", False),
        ("", False),
    ],
)
def test_windows_names_of_processors(text, expected):
    assert in_identifier(text) is expected


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [("Darwin", "arm64", True), ("Darwin", "x86_64", False), ("Windows", "AMD64", True), ("Plan 9", "386", False)],
)
def test_systems(monkeypatch, system, machine, expected):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "processor", lambda: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD")
    assert has_dot_products.__wrapped__() is expected


def test_linux_reads_its_own_file(monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert has_dot_products.__wrapped__() is False
    (tmp_path / "cpuinfo").write_text(ICE_LAKE.format(0))
    assert has_dot_products.__wrapped__() is True
