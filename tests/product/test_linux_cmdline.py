"""What Linux hears on its command line, whatever the machine."""

from __future__ import annotations

from types import SimpleNamespace

from vmm_arch.x86_64.linux.cmdline import linux_cmdline

MACHINE = SimpleNamespace(vcpus=[SimpleNamespace(get_tsc_khz=lambda: 2_400_000)])


def test_it_hears_of_console_clock_and_buses() -> None:
    said = linux_cmdline(MACHINE).split()
    assert {"console=ttyS0", "pci=off", "tsc_early_khz=2400000"} <= set(said)


def test_a_panic_resets_in_a_way_of_its_own() -> None:
    """The one that platform.pc tells from a wish; the first, which older kernels misread."""
    said = linux_cmdline(MACHINE).split()
    assert "panic=-1" in said
    assert "reboot=panic_warm,acpi" in said


def test_what_the_caller_adds_comes_last_and_so_counts() -> None:
    assert linux_cmdline(MACHINE, "panic=0 quiet").endswith(" panic=0 quiet")
    assert linux_cmdline(MACHINE) == linux_cmdline(MACHINE).rstrip()


def test_a_pci_bus_is_not_forbidden_where_there_is_one() -> None:
    assert "pci=off" not in linux_cmdline(MACHINE, "quiet pci=realloc").split()
    assert "pci=off" in linux_cmdline(MACHINE, "quiet nopci=x").split()
