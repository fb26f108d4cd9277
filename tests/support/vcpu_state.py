"""All state of a vCPU, read by each hypervisor's own calls; and changed, as a guest could have.

The first word of a name is the part that the state belongs to, which is the same on every hypervisor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from vmm_arch import kvm_x86_64, whp_x86_64
from vmm_arch.abi import kvm_x86_64 as kvm_abi
from vmm_arch.abi import whp_x86_64 as whp_abi
from vmm_arch.errors import HypervisorError
from vmm_arch.whp.x86_64 import registers as whp_registers

State: TypeAlias = dict[str, object]

RUNNING_CLOCKS = {0x10, 0x6E0}
"""IA32_TSC and its deadline: never the same twice."""
WHP_CLOCKS = {
    *("WHvX64RegisterTsc", "WHvX64RegisterTscDeadline", "WHvX64RegisterTscVirtualOffset"),
    *("WHvX64RegisterMCount", "WHvX64RegisterACount", "WHvRegisterVpRuntime"),
}


def differences(ours: State, theirs: State) -> list[str]:
    return [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]


def parts(names: Iterable[str]) -> set[str]:
    """The parts of the state that some names belong to."""
    return {name.split()[0] for name in names}


def msrs_of(vcpu: Any, numbers: Iterable[int]) -> dict[int, int]:
    """All MSRs among these that exist, but for the clocks."""
    found: dict[int, int] = {}
    for number in set(numbers) - RUNNING_CLOCKS:
        with suppress(HypervisorError):
            found |= vcpu.get_msrs([number])
    return found


def kvm_state(vcpu: Any) -> State:
    records = {
        "regs": (kvm_abi.KVM_GET_REGS, kvm_abi.kvm_regs()),
        "sregs": (kvm_abi.KVM_GET_SREGS, kvm_abi.kvm_sregs()),
        "xcrs": (kvm_abi.KVM_GET_XCRS, kvm_abi.kvm_xcrs()),
        "debugregs": (kvm_abi.KVM_GET_DEBUGREGS, kvm_abi.kvm_debugregs()),
        "events": (kvm_abi.KVM_GET_VCPU_EVENTS, kvm_abi.kvm_vcpu_events()),
        "activity": (kvm_abi.KVM_GET_MP_STATE, kvm_abi.kvm_mp_state()),
    }
    if vcpu.vm.irqchip:
        records["lapic"] = (kvm_abi.KVM_GET_LAPIC, kvm_abi.kvm_lapic_state())
    for request, record in records.values():
        vcpu.ioctl(request, record)
    fpu = vcpu.get_fpu()
    fpu.mxcsr_mask = 0  # what the processor can, not what is set
    msrs = msrs_of(vcpu, [*vars(kvm_x86_64)["_RESTORABLE"], *kvm_x86_64.UNLISTED_MSRS])
    return {
        **{name: bytes(record) for name, (_, record) in records.items()},
        **{f"msr {index:#x}": value for index, value in msrs.items()},
        "fpu": bytes(fpu),
    }


def kvm_scramble(vcpu: Any) -> None:
    xcrs = kvm_abi.kvm_xcrs(nr_xcrs=1)
    xcrs.xcrs[0].value = 3
    vcpu.ioctl(kvm_abi.KVM_SET_XCRS, xcrs)
    debugregs = kvm_abi.kvm_debugregs(db=(1, 2, 3, 4), dr6=0xFFFF0FF0, dr7=0x455)
    vcpu.ioctl(kvm_abi.KVM_SET_DEBUGREGS, debugregs)
    events = kvm_abi.kvm_vcpu_events()
    vcpu.ioctl(kvm_abi.KVM_GET_VCPU_EVENTS, events)
    events.nmi.masked = 1
    events.flags = kvm_abi.KVM_VCPUEVENT_VALID_NMI_PENDING
    vcpu.ioctl(kvm_abi.KVM_SET_VCPU_EVENTS, events)


WHP_REGISTERS = {
    name: number
    for name, number in vars(whp_abi).items()
    if name.startswith(("WHvX64Register", "WHvRegister")) and name not in WHP_CLOCKS
}
WHP_PARTS = {
    **{number: f"msr {index:#x}" for index, number in whp_registers.MSRS.items()},
    **dict.fromkeys(whp_registers.LAPIC.values(), "lapic"),
    **dict.fromkeys(whp_registers.REGS, "regs"),
    **dict.fromkeys(whp_registers.SREGS, "sregs"),
    **dict.fromkeys(whp_registers.FPU, "fpu"),
    **dict.fromkeys(range(whp_abi.WHvX64RegisterDr0, whp_abi.WHvX64RegisterDr7 + 1), "debugregs"),
    whp_abi.WHvX64RegisterXCr0: "xcrs",
    whp_abi.WHvRegisterPendingEvent: "events",
    whp_abi.WHvRegisterPendingInterruption: "events",
    whp_abi.WHvRegisterInterruptState: "events",
    whp_abi.WHvX64RegisterDeliverabilityNotifications: "events",
    whp_abi.WHvRegisterInternalActivityState: "activity",
}


def whp_register(vcpu: Any, number: int) -> bytes | None:
    """A register's 16 bytes; None if it cannot be read."""
    value = whp_abi.WHV_REGISTER_VALUE()
    names = whp_registers.names_array([number])
    with suppress(HypervisorError):
        vcpu.read_registers(names, 1, ctypes.byref(value))
        return bytes(value)
    return None


def set_whp_register(vcpu: Any, number: int, value: bytes) -> None:
    """Write a register's 16 bytes, as any user can."""
    record = whp_abi.WHV_REGISTER_VALUE.from_buffer_copy(value)
    vcpu.write_registers(whp_registers.names_array([number]), 1, ctypes.byref(record))


def whp_xsave(vcpu: Any) -> bytearray:
    """The XSAVE area, in the compacted format."""
    area = bytearray(0x4000)
    size = ctypes.c_uint32()
    where = (ctypes.c_char * len(area)).from_buffer(area)
    read = whp_x86_64.platform.WHvGetVirtualProcessorXsaveState
    read(vcpu.vm.partition, vcpu.index, where, len(area), ctypes.byref(size))
    return area[: size.value]


def whp_state(vcpu: Any) -> State:
    found: State = {"fpu xsave": bytes(whp_xsave(vcpu))}
    for name, number in WHP_REGISTERS.items():
        value = whp_register(vcpu, number)
        if value is not None:
            part = WHP_PARTS.get(number, "other")
            found[part if part.startswith("msr") else f"{part} {name}"] = value
    if vcpu.vm.irqchip:
        found["lapic page"] = bytes(vcpu.get_lapic())
    return found


def whp_scramble(vcpu: Any) -> None:
    changes = {
        whp_abi.WHvX64RegisterXCr0: 7,
        whp_abi.WHvX64RegisterDr0: 1,
        whp_abi.WHvX64RegisterDr3: 4,
        whp_abi.WHvX64RegisterDr7: 0x455,
        whp_abi.WHvRegisterInterruptState: 2,  # NmiMasked
        whp_abi.WHvX64RegisterDeliverabilityNotifications: 2,  # InterruptNotification
    }
    for number, value in changes.items():
        set_whp_register(vcpu, number, value.to_bytes(16, "little"))
    area = whp_xsave(vcpu)
    if area[520] & 4:  # XCOMP_BV: where there are upper halves of YMM0 to YMM15
        area[512] |= 4  # XSTATE_BV
        area[576:832] = bytes(range(256))
    where = (ctypes.c_char * len(area)).from_buffer(area)
    write = whp_x86_64.platform.WHvSetVirtualProcessorXsaveState
    write(vcpu.vm.partition, vcpu.index, where, len(area))
