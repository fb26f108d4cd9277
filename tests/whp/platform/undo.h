#ifndef VMM_ARCH_UNDO_H
#define VMM_ARCH_UNDO_H

#include "platform.h"

#include "instruction.h"

/* The access that KVM stopped at, out of its run page before that is used again. */
typedef struct {
    int port_access, write;
    u16 port;
    u8 size;
    u64 gpa;
    u8 data[8];
} access;

machine machine_of(const state *s);

/* The instruction's bytes from an offset in the code segment on; returns how many there are. */
u32 code_at(partition *p, state *s, const machine *m, u64 rip, u8 bytes[16]);

/* Whether the next instruction raises an exception that is an exit, and which (exceptions.c). */
int next_exception(partition *p, state *s, const machine *m, const u8 *bytes, u32 count,
                   WHV_VP_EXCEPTION_CONTEXT *to);

/* Let KVM finish what it has begun, reading zeros. */
void finish(processor *vp, const instruction *i);

/*
 * Put a processor just before the instruction whose access KVM stopped at: its bytes and how many,
 * its length, and the instruction if it could be decoded. 0 if it cannot be found again.
 */
int undo(partition *p, processor *vp, access *a, instruction *i, u8 bytes[16], u32 *count,
         u32 *length);

#endif
