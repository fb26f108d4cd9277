"""Where KVM keeps the state of an x86_64 vCPU.

``SINKS``: the calls that write state, in the order that KVM requires. ``constructor`` makes the
argument: a record of the raw ABI (shape "record"), a function with a keyword for each slot
("keywords"), or one that takes a dictionary ("table"). ``variable`` is the argument's name in a
function, ``type`` the type that copies prepared state before run-time values are filled in.
``composites`` gives, for each type of value with several parts, the function that makes one and
the member that each part is.

``SLOTS``: for each group of the vocabulary its sink, and patterns that map each element to its slot;
``*`` stands for the same text on both sides. A slot of a record is a path: ``gdt.base``,
``interrupt_bitmap[0]``, ``gprs[SOME_INDEX].low``.
"""

SINKS = {
    "activity": {
        "operation": "set_activity",
        "shape": "record",
        "constructor": "kvm_mp_state",
        "variable": "activity",
    },
    # Before the LAPIC, because it has the APIC's base.
    "sregs": {
        "operation": "set_sregs",
        "shape": "record",
        "constructor": "kvm_sregs",
        "variable": "sregs",
        "composites": {
            "SegmentValue": (
                "_segment_image",
                {"selector": "selector", "base": "base", "limit": "limit"},
            )
        },
    },
    # Before the events, because it clears pending exceptions.
    "regs": {
        "operation": "set_regs",
        "shape": "record",
        "constructor": "kvm_regs",
        "variable": "regs",
    },
    # Not KVM_SET_FPU, which has no effect on a new vCPU and never sets MXCSR.
    "xsave": {
        "operation": "set_fpu",
        "shape": "keywords",
        "constructor": "Fpu",
        "variable": "fpu",
    },
    "xcrs": {
        "operation": "set_xcrs",
        "shape": "keywords",
        "constructor": "_xcrs_image",
        "variable": "xcrs",
        "when": "vcpu.vm._has_xcrs",
    },
    "debugregs": {
        "operation": "set_debugregs",
        "shape": "keywords",
        "constructor": "_debugregs_image",
        "variable": "debugregs",
    },
    # Before the MSRs, because the timer's mode decides whether the TSC deadline can be set.
    "lapic": {
        "operation": "set_lapic",
        "shape": "table",
        "constructor": "_lapic_image",
        "type": "Lapic",
        "variable": "lapic",
        "when": "vcpu.vm.irqchip",
    },
    "msrs": {
        "operation": "set_msr_image",
        "shape": "table",
        "constructor": "_msrs_image",
        "variable": "msrs",
    },
    "events": {
        "operation": "set_events",
        "shape": "record",
        "constructor": "kvm_vcpu_events",
        "variable": "events",
        "fixed": {"flags": "KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW"},
    },
}

SLOTS = {
    "general": ("regs", {"*": "*"}),
    "special": ("sregs", {"*": "*"}),
    "fpu": ("xsave", {"*": "*"}),
    "msrs": ("msrs", {"*": "*"}),
    "lapic": ("lapic", {"*": "*"}),
    "debug": ("debugregs", {"*": "*"}),
    "extended_control": ("xcrs", {"*": "*"}),
    "events": (
        "events",
        {
            "pending_exception": "exception.injected",
            "pending_interrupt": "interrupt.injected",
            "pending_nmi": "nmi.pending",
            "nmi_masked": "nmi.masked",
            "interrupt_shadow": "interrupt.shadow",
        },
    ),
    # KVM_MP_STATE_RUNNABLE is 0, KVM_MP_STATE_UNINITIALIZED 1.
    "activity": ("activity", {"waits_for_sipi": "mp_state"}),
}

CREATION_GUARANTEES = ("fpu", "debug", "extended_control", "events", "activity")
"""Groups that a new vCPU has as required on every kernel, so that configure_vcpu leaves them out.

Not the same as a hardware reset: KVM begins with the FPU as after FNINIT and MXCSR 0x1F80."""
