/* The local APIC in the partition: interrupts from outside, and its state. */
#include "platform.h"

/* KVM tells of an EOI if the interrupt is in its routing table, as if it came from an I/O APIC. */
static i64 route_level_triggered(partition *p, const struct kvm_msi *msi)
{
    enum { PINS = sizeof p->routes / sizeof *p->routes };
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entries[PINS];
    } table;
    i64 failed = 0;
    acquire(&p->interrupts);
    u32 i = 0, count = p->route_count < PINS ? p->route_count : PINS;
    while (i < count && (p->routes[i].u.msi.address_lo != msi->address_lo ||
                         p->routes[i].u.msi.data != msi->data))
        i++;
    if (i == count) {
        struct kvm_irq_routing_entry *e = &p->routes[p->route_count++ % PINS];
        clear(e, sizeof *e);
        e->gsi = (u32)(e - p->routes);
        e->type = KVM_IRQ_ROUTING_MSI;
        e->u.msi.address_lo = msi->address_lo;
        e->u.msi.data = msi->data;
        clear(&table, sizeof table);
        table.head.nr = p->route_count < PINS ? p->route_count : PINS;
        copy(table.entries, p->routes, sizeof table.entries);
        failed = ioctl(p->vm, KVM_SET_GSI_ROUTING, &table);
    }
    release(&p->interrupts);
    return failed;
}

EXPORT HRESULT WINAPI WHvRequestInterrupt(WHV_PARTITION_HANDLE handle,
                                          const WHV_INTERRUPT_CONTROL *interrupt, UINT32 size)
{
    HRESULT error;
    partition *p = set_up_partition(handle, &error);
    if (!p)
        return error;
    if (!p->properties.apic_mode)
        return ERROR_HV_OPERATION_DENIED;
    if (!interrupt || size != sizeof *interrupt ||
        interrupt->Destination > 0xff || interrupt->Vector > 0xff || interrupt->TargetVtl)
        return E_INVALIDARG;
    switch (interrupt->Type) {
    case WHvX64InterruptTypeFixed:
    case WHvX64InterruptTypeLowestPriority:
    case WHvX64InterruptTypeNmi:
    case WHvX64InterruptTypeInit:
    case WHvX64InterruptTypeSipi:
        break;
    default:
        return E_INVALIDARG;
    }
    /* The address and data of a message-signalled interrupt: Intel SDM volume 3, 11.11. */
    struct kvm_msi msi;
    clear(&msi, sizeof msi);
    int logical = interrupt->DestinationMode == WHvX64InterruptDestinationModeLogical;
    int level = interrupt->TriggerMode == WHvX64InterruptTriggerModeLevel;
    msi.address_lo = 0xfee00000 | interrupt->Destination << 12 | (logical ? 4 : 0);
    msi.data = interrupt->Vector | (u32)interrupt->Type << 8 | (level ? 0xc000 : 0);
    if (level && route_level_triggered(p, &msi))
        return E_FAIL;
    return ioctl(p->vm, KVM_SIGNAL_MSI, &msi) < 0 ? E_FAIL : S_OK;
}

/*
 * The state is the APIC's page: a register of 32 bits every 16 bytes, as QEMU (whpx-apic.c) and
 * OpenVMM read it. KVM has the first quarter of it, and nothing is in the rest.
 */
static HRESULT move_apic(WHV_PARTITION_HANDLE handle, u32 index, void *page, u32 size, u32 *written,
                         int set)
{
    HRESULT error;
    partition *p;
    processor *vp = enter(handle, index, &p, &error);
    if (!vp)
        return error;
    if (!p->properties.apic_mode)
        error = E_INVALIDARG;
    else if (written && !set)
        *written = LAPIC_SIZE;
    if (!error && size < LAPIC_SIZE)
        error = set ? E_INVALIDARG : WHV_E_INSUFFICIENT_BUFFER;
    if (!error) {
        need(vp, LAPIC);
        struct kvm_lapic_state *lapic = &vp->state.lapic;
        if (set) {
            copy(lapic->regs, page, sizeof lapic->regs);
            vp->state.changed = LAPIC;
            error = write_back(vp) ? ERROR_HV_INVALID_PARAMETER : S_OK;
        } else {
            clear(page, LAPIC_SIZE);
            copy(page, lapic->regs, sizeof lapic->regs);
        }
        forget_state(vp);
    }
    leave(vp);
    return error;
}

EXPORT HRESULT WINAPI WHvGetVirtualProcessorInterruptControllerState2(WHV_PARTITION_HANDLE handle,
                                                                      UINT32 index, VOID *page,
                                                                      UINT32 size, UINT32 *written)
{
    return move_apic(handle, index, page, size, written, 0);
}

EXPORT HRESULT WINAPI WHvSetVirtualProcessorInterruptControllerState2(WHV_PARTITION_HANDLE handle,
                                                                      UINT32 index,
                                                                      const VOID *page, UINT32 size)
{
    return move_apic(handle, index, (void *)page, size, 0, 1);
}
