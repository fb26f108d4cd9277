"""CPUID's bits by name: they are found, added and removed, and unknown names are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import require
from vmm_arch.selftest.x86_64.harness import AnyBackend
from vmm_arch.x86_64 import features as module
from vmm_arch.x86_64.cpuid import CpuidEntry
from vmm_arch.x86_64.features import FeatureBit, cpuid_features, feature_bits, with_features
from vmm_arch_gen.fetch.packages import unpacked
from vmm_arch_gen.project import project
from vmm_arch_gen.targets import load_targets

LEAVES = sorted({(bit.function, bit.subleaf) for bit in feature_bits().values()})
NOTHING = [CpuidEntry(function, index) for function, index in LEAVES]


@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("fpu", FeatureBit(0x1, 0, "edx", 0)),  # Intel SDM volume 2A, table 3-20
        ("sse2", FeatureBit(0x1, 0, "edx", 26)),
        ("pni", FeatureBit(0x1, 0, "ecx", 0)),
        ("vmx", FeatureBit(0x1, 0, "ecx", 5)),
        ("hypervisor", FeatureBit(0x1, 0, "ecx", 31)),
        ("avx2", FeatureBit(0x7, 0, "ebx", 5)),
        ("pku", FeatureBit(0x7, 0, "ecx", 3)),
        ("amx_tile", FeatureBit(0x7, 0, "edx", 24)),
        ("avx_vnni", FeatureBit(0x7, 1, "eax", 4)),
        ("xsaves", FeatureBit(0xD, 1, "eax", 3)),
        ("lm", FeatureBit(0x80000001, 0, "edx", 29)),  # AMD APM volume 3, appendix E
        ("svm", FeatureBit(0x80000001, 0, "ecx", 2)),
        ("npt", FeatureBit(0x8000000A, 0, "edx", 0)),
        ("sev", FeatureBit(0x8000001F, 0, "eax", 1)),
    ],
)
def test_where_a_feature_is(name: str, bit: FeatureBit) -> None:
    assert feature_bits()[name] == bit


def test_there_are_hundreds_and_no_two_are_one_bit() -> None:
    bits = feature_bits()
    assert len(bits) > 280
    assert len(set(bits.values())) == len(bits)
    assert str(bits["avx_vnni"]) == "CPUID 0x7.1 EAX bit 4"
    assert str(bits["sse2"]) == "CPUID 0x1 EDX bit 26"


def test_this_hosts_features_are_those_that_linux_shows() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    require(cpuinfo.exists(), "no /proc/cpuinfo")
    flags = re.search(r"^flags\s*: (.*)$", cpuinfo.read_text(), re.M)
    require(flags is not None, "not an x86 processor")
    assert flags is not None
    shown = set(flags[1].split())
    known = shown & feature_bits().keys()
    assert len(known) > 30
    names = {"sse", "sse2", "fpu", "cx8", "lm", "syscall", "nx"}
    assert names <= known


def test_a_vcpu_has_the_features_that_its_machine_is_given(arch: AnyBackend) -> None:
    host = arch.supported_cpuid()
    assert {"fpu", "sse2", "hypervisor"} <= cpuid_features(host)
    cpuid = with_features(host, remove=["cx16", "pge", "rdtscp"], add=["x2apic"])
    with arch.GuestMemory(0x10000) as memory, arch.Vm(memory, cpuid=cpuid) as vm:
        has = cpuid_features(vm.vcpus[0].cpuid)
    assert not {"cx16", "pge", "rdtscp"} & has
    assert {"hypervisor", "fpu", "sse2"} <= has


names = st.sets(st.sampled_from(sorted(feature_bits())))


@given(names, names)
def test_adding_and_removing(some: set[str], others: set[str]) -> None:
    made = with_features(NOTHING, add=some)
    assert cpuid_features(made) == some
    assert cpuid_features(with_features(made, remove=others)) == some - others
    assert with_features(made, remove=some) == NOTHING
    assert made is not NOTHING


def test_a_pattern_removes_all_that_match() -> None:
    everything = with_features(NOTHING, add=feature_bits())
    left = cpuid_features(with_features(everything, remove=["avx512*", "amx_*"]))
    assert not [name for name in left if name.startswith(("avx512", "amx_"))]
    assert "avx2" in left


def test_everything_wrong_is_listed_at_once() -> None:
    with pytest.raises(ValueError, match="avx2") as error:
        with_features(
            [CpuidEntry(1, None)],
            add=["avx2", "avx3", "sse2", "sse*"],
            remove=["sse2", "zzzzzz"],
        )
    assert str(error.value).splitlines() == [
        "avx3: no feature has this name; did you mean avx or avx2?",
        "sse*: no feature has this name; did you mean sse or sse3 or sse2?",
        "zzzzzz: no feature has this name; feature_bits() has them all",
        "sse2: both to be added and to be removed",
        "avx2: there is no result of CPUID 0x7 EBX bit 5 to set",
    ]
    with pytest.raises(TypeError, match="'avx2' is one name; give a list of names"):
        with_features(NOTHING, remove="avx2")


def test_the_words_are_those_of_linuxs_enumeration() -> None:
    target = load_targets(project().targets_file).targets["cpuid_x86_64"]
    folders = (unpacked(one.package) / one.path for one in target.folders if one.package)
    header = next(file for one in folders if (file := one / "asm/cpufeature.h").exists())
    listed = re.search(r"enum cpuid_leafs\s*\{(.*?)\}", header.read_text(), re.S)
    assert listed is not None
    words = [line.split("=")[0].strip() for line in listed[1].split(",") if line.strip()]
    expected = {}
    for number, word in enumerate(words):
        found = re.fullmatch(r"CPUID_((?:[8C]0[08][06]_)?[0-9A-F]+?)(?:_([01]))?_(E[A-D]X)", word)
        if found:
            leaf, index, register = found.groups()
            expected[number] = (int(leaf.replace("_", ""), 16), int(index or 0), register.lower())
    assert expected == module._WORDS
    assert len(expected) > 14
