"""Where WHP keeps the state of an x86_64 vCPU: all of it in registers, which one call writes.

KVM's file of this name explains the tables' syntax. A slot with dots is a member of a register's
value, ``WHV_REGISTER_VALUE``.
"""

SINKS = {
    "registers": {
        "operation": "set_registers",
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

CREATION_GUARANTEES = ()
"""None: the initial register values of a new virtual processor are not documented."""
