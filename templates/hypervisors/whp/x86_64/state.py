"""Where WHP keeps the state of an x86_64 vCPU: most of it in registers, which one call writes.

KVM's file of this name explains the tables' syntax. A slot with dots is a member of a register's
value, ``WHV_REGISTER_VALUE``.
"""

SINKS = {
    # Given at creation.
    "cpuid": {
        "reads": "read_cpuid",
        "shape": "whole",
        "form": "CpuidForm()",
        "variable": "entries",
    },
    "xsave": {
        "reads": "read_extended",
        "restores": "restore_extended",
        "shape": "whole",
        "form": "ExtendedForm()",
        "variable": "extended",
        "running": ("xstate_bv",),
        "when": 'platform.has("WHvGetVirtualProcessorXsaveState")',
        "calls": ("WHvGetVirtualProcessorXsaveState", "WHvSetVirtualProcessorXsaveState"),
    },
    "registers": {
        "operation": "set_registers",
        "reads": "read_registers",
        "restores": "restore_registers",
        "form": "RegistersForm",
        # What the processor can, not what is set.
        "running": ("WHvX64RegisterXmmControlStatus.XmmStatusControlMask",),
        "shape": "table",
        "constructor": "RegisterImage",
        "type": "RegisterImage",
        "value": "union WHV_REGISTER_VALUE",
        "variable": "registers",
        "composites": {
            "SegmentValue": (
                "segment_image",
                {"selector": "Segment.Selector", "base": "Segment.Base", "limit": "Segment.Limit"},
            )
        },
        "calls": ("WHvGetVirtualProcessorRegisters", "WHvSetVirtualProcessorRegisters"),
        "names": "enum WHV_REGISTER_NAME",
        "own": (
            "WHvX64RegisterTsc",
            "WHvX64RegisterTscDeadline",
            "WHvX64RegisterTscAdjust",
            "WHvX64RegisterMsrMtrrPhys*",
            "WHvX64RegisterMsrMtrrFix*",
            "WHvX64RegisterBndcfgs",
            "WHvX64RegisterSpecCtrl",
            "WHvX64RegisterTsxCtrl",
            "WHvX64RegisterUmwaitControl",
            "WHvX64RegisterXss",
            "WHvX64RegisterXfd*",
            "WHvX64Register[US]Cet",
            "WHvX64Register*Ssp",
            "WHvX64RegisterInterruptSspTableAddr",
            "WHvX64RegisterIa32FeatureControl",
            "WHvX64RegisterAmdVm*",
            # Hyper-V's synthetic registers.
            "WHvRegisterSint*",
            "WHvRegisterScontrol",
            "WHvRegisterSiefp",
            "WHvRegisterSimp",
            "WHvRegisterGuestOsId",
            "WHvRegisterVpAssistPage",
            "WHvRegisterReferenceTsc",
            "WHvX64RegisterHypercall",
            # Events that are pending besides the contract's, and requested exits.
            "WHvRegisterPendingEvent[123]",
            "WHvX64RegisterPendingDebugException",
            "WHvX64RegisterDeliverabilityNotifications",
        ),
    },
    "lapic": {
        "reads": "read_lapic_page",
        "restores": "restore_lapic_page",
        "shape": "whole",
        "form": "LapicForm(Lapic)",
        "variable": "lapic",
        "when": "_has_lapic_page(vcpu.vm)",
        "running": ("APIC_TIMER_CURRENT", "APIC_PPR"),
        # Interrupts that are requested: other vCPUs go on.
        "live": ("APIC_0x2[0-7]0",),
        "calls": (
            "WHvGetVirtualProcessorInterruptControllerState2",
            "WHvSetVirtualProcessorInterruptControllerState2",
        ),
    },
    "tsc": {
        "reads": "read_tsc",
        "restores": "restore_tsc",
        "shape": "whole",
        "form": 'NumbersForm("tsc")',
        "variable": "tsc",
        "running": ("tsc",),
    },
    "deadline": {
        "reads": "read_deadline",
        "restores": "restore_deadline",
        "shape": "whole",
        "form": 'NumbersForm("IA32_TSC_DEADLINE")',
        "variable": "deadline",
        "when": "_has_deadline(vcpu.vm)",
    },
    # The machine's: the I/O APIC, which is this package's, and the vCPUs' counters together.
    "ioapic": {
        "of": "machine",
        "reads": "read_ioapic",
        "restores": "restore_ioapic",
        "shape": "whole",
        "form": "NumbersForm(*SAVED)",
        "variable": "ioapic",
        "when": "vm.irqchip",
    },
    "counters": {
        "of": "machine",
        "reads": "read_counters",
        "restores": "restore_counters",
        "shape": "whole",
        "form": 'SequenceForm("tsc")',
        "variable": "counters",
        "running": ("tsc*",),
        "when": 'platform.has("WHvSuspendPartitionTime")',
    },
}

SLOTS = {
    "general": (
        "registers",
        {
            "rax": "WHvX64RegisterRax",
            "rbx": "WHvX64RegisterRbx",
            "rcx": "WHvX64RegisterRcx",
            "rdx": "WHvX64RegisterRdx",
            "rsi": "WHvX64RegisterRsi",
            "rdi": "WHvX64RegisterRdi",
            "rsp": "WHvX64RegisterRsp",
            "rbp": "WHvX64RegisterRbp",
            "r8": "WHvX64RegisterR8",
            "r9": "WHvX64RegisterR9",
            "r10": "WHvX64RegisterR10",
            "r11": "WHvX64RegisterR11",
            "r12": "WHvX64RegisterR12",
            "r13": "WHvX64RegisterR13",
            "r14": "WHvX64RegisterR14",
            "r15": "WHvX64RegisterR15",
            "rip": "WHvX64RegisterRip",
            "rflags": "WHvX64RegisterRflags",
        },
    ),
    "special": (
        "registers",
        {
            "cs": "WHvX64RegisterCs",
            "ds": "WHvX64RegisterDs",
            "es": "WHvX64RegisterEs",
            "fs": "WHvX64RegisterFs",
            "gs": "WHvX64RegisterGs",
            "ss": "WHvX64RegisterSs",
            "tr": "WHvX64RegisterTr",
            "ldt": "WHvX64RegisterLdtr",
            "gdt.base": "WHvX64RegisterGdtr.Table.Base",
            "gdt.limit": "WHvX64RegisterGdtr.Table.Limit",
            "idt.base": "WHvX64RegisterIdtr.Table.Base",
            "idt.limit": "WHvX64RegisterIdtr.Table.Limit",
            "cr0": "WHvX64RegisterCr0",
            "cr2": "WHvX64RegisterCr2",
            "cr3": "WHvX64RegisterCr3",
            "cr4": "WHvX64RegisterCr4",
            "cr8": "WHvX64RegisterCr8",
            "efer": "WHvX64RegisterEfer",
            "apic_base": "WHvX64RegisterApicBase",
        },
    ),
    "fpu": (
        "registers",
        {
            "fcw": "WHvX64RegisterFpControlStatus.FpControlStatus.FpControl",
            "fsw": "WHvX64RegisterFpControlStatus.FpControlStatus.FpStatus",
            "ftw": "WHvX64RegisterFpControlStatus.FpControlStatus.FpTag",
            "fop": "WHvX64RegisterFpControlStatus.FpControlStatus.LastFpOp",
            "fip": "WHvX64RegisterFpControlStatus.FpControlStatus.LastFpRip",
            "fdp": "WHvX64RegisterXmmControlStatus.XmmControlStatus.LastFpRdp",
            "mxcsr": "WHvX64RegisterXmmControlStatus.XmmControlStatus.XmmStatusControl",
            "st*": "WHvX64RegisterFpMmx*",
            "xmm*": "WHvX64RegisterXmm*",
        },
    ),
    "msrs": (
        "registers",
        {
            "IA32_SYSENTER_CS": "WHvX64RegisterSysenterCs",
            "IA32_SYSENTER_ESP": "WHvX64RegisterSysenterEsp",
            "IA32_SYSENTER_EIP": "WHvX64RegisterSysenterEip",
            "IA32_MISC_ENABLE": "WHvX64RegisterMsrIa32MiscEnable",
            "IA32_PAT": "WHvX64RegisterPat",
            "IA32_MTRR_DEF_TYPE": "WHvX64RegisterMsrMtrrDefType",
            "IA32_STAR": "WHvX64RegisterStar",
            "IA32_LSTAR": "WHvX64RegisterLstar",
            "IA32_CSTAR": "WHvX64RegisterCstar",
            "IA32_FMASK": "WHvX64RegisterSfmask",
            "IA32_KERNEL_GS_BASE": "WHvX64RegisterKernelGsBase",
            "IA32_TSC_AUX": "WHvX64RegisterTscAux",
        },
    ),
    # A machine without a local APIC leaves these out.
    "lapic": (
        "registers",
        {
            "APIC_ID": unsupported("it is the vCPU's index and cannot be written"),
            "APIC_TPR": "WHvX64RegisterApicTpr",
            "APIC_LDR": "WHvX64RegisterApicLdr",
            "APIC_DFR": unsupported("no register has it; its value after a reset is all ones"),
            "APIC_SVR": "WHvX64RegisterApicSpurious",
            "APIC_LVT_CMCI": unsupported("there are no corrected machine checks"),
            "APIC_LVT_TIMER": "WHvX64RegisterApicLvtTimer",
            "APIC_LVT_THERMAL": "WHvX64RegisterApicLvtThermal",
            "APIC_LVT_PERFORMANCE": "WHvX64RegisterApicLvtPerfmon",
            "APIC_LVT_LINT0": "WHvX64RegisterApicLvtLint0",
            "APIC_LVT_LINT1": "WHvX64RegisterApicLvtLint1",
            "APIC_LVT_ERROR": "WHvX64RegisterApicLvtError",
        },
    ),
    "debug": ("registers", {"dr*": "WHvX64RegisterDr*"}),
    "extended_control": ("registers", {"xcr0": "WHvX64RegisterXCr0"}),
    "events": (
        "registers",
        {
            "pending_exception": "WHvRegisterPendingEvent.ExceptionEvent.EventPending",
            "pending_interrupt": "WHvRegisterPendingInterruption.PendingInterruption"
            ".InterruptionPending",
            "pending_nmi": unsupported(
                "it is a pending interruption, or in the APIC's page, which a reset writes"
            ),
            "nmi_masked": "WHvRegisterInterruptState.InterruptState.NmiMasked",
            "interrupt_shadow": "WHvRegisterInterruptState.InterruptState.InterruptShadow",
        },
    ),
    "activity": (
        "registers",
        {"waits_for_sipi": "WHvRegisterInternalActivityState.InternalActivity.StartupSuspend"},
    ),
}

ORDER = (
    (
        "write xsave",
        "before",
        "write registers",
        "it has x87 and SSE registers too, and those by name count",
        "WHvSetVirtualProcessorXsaveState",
    ),
    (
        "write registers",
        "before",
        "write lapic",
        "they have the APIC's base and mode",
        "Intel SDM volume 3, 13.4.3",
    ),
    (
        "write lapic",
        "before",
        "write deadline",
        "the timer's mode decides whether the deadline can be set",
        "Intel SDM volume 3, 13.5.4.1",
    ),
    (
        "write tsc",
        "before",
        "write deadline",
        "the deadline is compared with the counter when it is set",
        "Intel SDM volume 3, 13.5.4.1",
    ),
    (
        "write vcpus",
        "before",
        "write counters",
        "each vCPU's counter continues from when it is written, and so apart from the others",
        "WHvSuspendPartitionTime",
    ),
)
"""Which of two steps comes first, why, and where that can be read. Otherwise the order is SINKS'."""

NOT_STATE = {
    "IsWHv*Present": "whether the library has a function",
    "WHv[GS]etPartitionProperty": "the machine's configuration, which its constructor sets",
    "WHv[GS]etVirtualProcessorState": "the same state as the calls for XSAVE and the local APIC,"
    " and that of nested guests, which are not supported",
    "WHv[GS]etVirtualProcessorInterruptControllerState": "an older form, without the whole page",
    "WHvSetNotificationPortProperty": "notifications to the VMM",
    "WHvSetVpciDevicePowerState": "devices of the host that are passed through: not supported",
    "WHvX64RegisterVirtualCr*": "what the guest reads of CR0 to CR8, which follows from those",
    "WHvX64RegisterInitialApicId": "the vCPU's index",
    "WHvX64RegisterMsrMtrrCap": "the processor's, read-only",
    "WHvX64RegisterIa32Vmx*": "the processor's capabilities, read-only",
    "WHvX64Register[MA]Count": "MPERF and APERF: they count the host processor's cycles",
    "WHvX64RegisterPredCmd": "a command, write-only",
    "WHvX64RegisterTscVirtualOffset": "the time stamp counter again",
    "WHvX64RegisterApicId": "the vCPU's index",
    "WHvX64RegisterApicVersion": "the processor's, read-only",
    "WHvX64RegisterApicPpr": "follows from the TPR and the interrupts in service",
    "WHvX64RegisterApicEoi": "a command, write-only",
    "WHvX64RegisterApicSelfIpi": "a command, write-only",
    "WHvX64RegisterApic[IT][sm]r?": "in the local APIC's page",
    "WHvX64RegisterApicIrr?": "in the local APIC's page",
    "WHvX64RegisterApicEse": "in the local APIC's page",
    "WHvX64RegisterApicIcr": "in the local APIC's page",
    "WHvX64RegisterApicInitCount": "in the local APIC's page",
    "WHvX64RegisterApicCurrentCount": "in the local APIC's page",
    "WHvX64RegisterApicDivide": "in the local APIC's page",
    "WHvRegisterSversion": "the hypervisor's, read-only",
    "WHvRegisterEom": "a command, write-only",
    "WHvRegisterVpRuntime": "how long the vCPU has run, read-only",
    "WHvRegisterReferenceTscSequence": "in guest memory, where WHvRegisterReferenceTsc says",
    "WHvRegisterDeliverabilityNotifications": "WHvX64RegisterDeliverabilityNotifications again",
    "WHvX64RegisterNested*": "nested guests are not supported",
}
"""Calls and registers that are not the guest's state, by name or pattern, and why they are not."""

CREATION_GUARANTEES = ()
"""None: the initial register values of a new virtual processor are not documented."""
