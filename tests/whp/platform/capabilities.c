/* What WHvGetCapability says of this platform and of the host's KVM. */
#include "platform.h"

/* KVM cannot stop at CPUID and exceptions: instructions are looked at one by one while that is asked for. */
const u64 EXTENDED_EXITS = 1 << 0 /* X64CpuidExit */ | 1 << 1 /* X64MsrExit */ |
                           1 << 2 /* ExceptionExit */;
const u64 EXCEPTION_EXITS = 1 << WHvX64ExceptionTypeBreakpointTrap |
                            1 << WHvX64ExceptionTypeInvalidOpcodeFault |
                            1 << WHvX64ExceptionTypePageFault;
const u64 MSR_EXITS = 0x3f;

static u64 features(void)
{
    WHV_CAPABILITY_FEATURES f;
    clear(&f, sizeof f);
    f.PartialUnmap = f.LocalApicEmulation = f.Xsave = f.DirtyPageTracking = 1;
    f.SpeculationControl = 1;
    return f.AsUINT64;
}

static int has(const struct kvm_cpuid2 *list, u32 leaf, u32 subleaf, int reg, int bit)
{
    for (u32 i = 0; list && i < list->nent; i++)
        if (list->entries[i].function == leaf && list->entries[i].index == subleaf)
            return (&list->entries[i].eax)[reg] >> bit & 1;
    return 0;
}

static u64 xsave_features(const struct kvm_cpuid2 *cpuid)
{
    enum { EAX, EBX, ECX, EDX };
    WHV_PROCESSOR_XSAVE_FEATURES x;
    clear(&x, sizeof x);
    x.XsaveSupport = has(cpuid, 1, 0, ECX, 26);
    x.AvxSupport = has(cpuid, 1, 0, ECX, 28);
    x.FmaSupport = has(cpuid, 1, 0, ECX, 12);
    x.Avx2Support = has(cpuid, 7, 0, EBX, 5);
    x.Avx512Support = has(cpuid, 7, 0, EBX, 16);
    x.Avx512DQSupport = has(cpuid, 7, 0, EBX, 17);
    x.Avx512CDSupport = has(cpuid, 7, 0, EBX, 28);
    x.Avx512BWSupport = has(cpuid, 7, 0, EBX, 30);
    x.Avx512VLSupport = has(cpuid, 7, 0, EBX, 31);
    x.XsaveoptSupport = has(cpuid, 0xd, 1, EAX, 0);
    x.XsaveCompSupport = has(cpuid, 0xd, 1, EAX, 1);
    x.XsaveSupervisorSupport = has(cpuid, 0xd, 1, EAX, 3);
    return x.AsUINT64;
}

static u32 vendor(const struct kvm_cpuid2 *cpuid)
{
    for (u32 i = 0; cpuid && i < cpuid->nent; i++)
        if (cpuid->entries[i].function == 0)
            switch (cpuid->entries[i].ebx) {
            case 0x756e6547: /* Genu(ineIntel) */
                return WHvProcessorVendorIntel;
            case 0x6f677948: /* Hygo(nGenuine) */
                return WHvProcessorVendorHygon;
            }
    return WHvProcessorVendorAmd;
}

u64 clock_frequency(int kvm)
{
    i64 vm = ioctl(kvm, KVM_CREATE_VM, 0);
    i64 vcpu = vm < 0 ? -1 : ioctl((int)vm, KVM_CREATE_VCPU, 0);
    i64 khz = vcpu < 0 ? 0 : ioctl((int)vcpu, KVM_GET_TSC_KHZ, 0);
    if (vcpu >= 0)
        close_file((int)vcpu);
    if (vm >= 0)
        close_file((int)vm);
    return khz > 0 ? (u64)khz * 1000 : 0;
}

u64 synthetic_features(int kvm)
{
    /* HypervisorPresent, Hv1, run time, reference counter, SynIC, timers, interrupt control,
     * hypercalls, VP index, reference TSC, frequencies: what KVM has from CPUID 0x40000003 on. */
    return ioctl(kvm, KVM_CHECK_EXTENSION, (void *)KVM_CAP_HYPERV_TIME) > 0 ? 0xbff : 0;
}

EXPORT HRESULT WINAPI WHvGetCapability(WHV_CAPABILITY_CODE code, VOID *buffer, UINT32 size,
                                       UINT32 *written)
{
    WHV_CAPABILITY value;
    u32 length = 8;
    struct kvm_cpuid2 *cpuid = 0;
    i64 kvm = system_call(SYS_open, (i64) "/dev/kvm", 02000002 /* O_RDWR | O_CLOEXEC */, 0, 0, 0, 0);
    int present = kvm >= 0 && ioctl((int)kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION;
    HRESULT result = present ? S_OK : ERROR_HV_NOT_PRESENT;
    clear(&value, sizeof value);
    if (present) {
        cpuid = map_pages(4 * PAGE, -1);
        if (cpuid) {
            cpuid->nent = LIST;
            ioctl((int)kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
        }
    }
    switch ((u32)code) {
    case WHvCapabilityCodeHypervisorPresent:
        value.HypervisorPresent = present;
        length = sizeof value.HypervisorPresent;
        result = S_OK;
        break;
    case WHvCapabilityCodeFeatures:
        value.Features.AsUINT64 = features();
        break;
    case WHvCapabilityCodeExtendedVmExits:
        value.ExtendedVmExits.AsUINT64 = EXTENDED_EXITS;
        break;
    case WHvCapabilityCodeExceptionExitBitmap:
        value.ExceptionExitBitmap = EXCEPTION_EXITS;
        break;
    case WHvCapabilityCodeX64MsrExitBitmap:
        value.X64MsrExitBitmap.AsUINT64 = MSR_EXITS;
        break;
    case WHvCapabilityCodeProcessorVendor:
        value.ProcessorVendor = vendor(cpuid);
        length = sizeof value.ProcessorVendor;
        break;
    case WHvCapabilityCodeProcessorClFlushSize:
        value.ProcessorClFlushSize = 6; /* a line of 2 to the 6th bytes */
        length = sizeof value.ProcessorClFlushSize;
        break;
    case WHvCapabilityCodeProcessorXsaveFeatures:
        value.ProcessorXsaveFeatures.AsUINT64 = xsave_features(cpuid);
        break;
    case WHvCapabilityCodeProcessorClockFrequency:
        value.ProcessorClockFrequency = present ? clock_frequency((int)kvm) : 0;
        break;
    case WHvCapabilityCodeInterruptClockFrequency:
        value.InterruptClockFrequency = 1000000000; /* of KVM's local APIC: APIC_BUS_CYCLE_NS */
        break;
    case WHvCapabilityCodeSyntheticProcessorFeaturesBanks:
        value.SyntheticProcessorFeaturesBanks.BanksCount = 1;
        value.SyntheticProcessorFeaturesBanks.AsUINT64[0] =
            present ? synthetic_features((int)kvm) : 0;
        length = sizeof value.SyntheticProcessorFeaturesBanks;
        break;
    default:
        result = WHV_E_UNKNOWN_CAPABILITY;
    }
    if (cpuid)
        unmap_pages(cpuid, 4 * PAGE);
    if (kvm >= 0)
        close_file((int)kvm);
    if (result)
        return result;
    if (written)
        *written = length;
    if (size < length)
        return WHV_E_INSUFFICIENT_BUFFER;
    copy(buffer, &value, length);
    return S_OK;
}
