"""A snapshot fuzzer: finds the bugs in a small parser, guided by the blocks of code that inputs reach.

    python examples/snapshot_fuzzer.py [SECONDS] [FOLDER]      needs gcc, binutils and /dev/kvm

The parser is a guest without an operating system. It says when it is ready: each run goes back to
that moment. A block has a breakpoint until it is reached for the first time, so what is known costs
nothing any more. Inputs with which it fails are kept in FOLDER (crashes).
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

from vmm_arch import kvm_x86_64 as arch

CODE, INPUT, STACK, LONGEST = 0x10_0000, 0x8_0000, 0x7_0000, 64
READY, DONE = 0x10, 0x11
PARSER = r"""
#define OUT(port) __asm__ volatile("outb %%al, %0" :: "N"(port))

__attribute__((noinline)) static unsigned parse(const unsigned char *data, unsigned size)
{
    volatile unsigned char row[16];
    unsigned at = 4, width = 1, total = 0;

    if (size < 8 || data[0] != 'I' || data[1] != 'M' || data[2] != 'G' || data[3] != 1)
        return 0;
    while (at + 3 <= size) {
        unsigned kind = data[at], length = data[at + 1];
        if (kind == 'W')
            width = data[at + 2];
        else if (kind == 'S')
            total += length * 256 / width;          // 0 is no width
        else if (kind == 'R')
            for (unsigned i = 0; i < length && at + 2 + i < size; i++)
                row[i] = data[at + 2 + i];          // not more than 16
        else if (kind == 'E')
            return total + row[0];
        at += kind == 'P' ? length : 2 + length;    // without end
    }
    return total;
}

void start(void)
{
    OUT(READY);
    volatile unsigned result = parse((void *)(INPUT + 4), *(volatile unsigned *)INPUT);
    OUT(DONE);
}
"""
PIECES = (b"W\1\1", b"S\4", b"R\2ab", b"P\2", b"E\0", b"\0", b"\xff", b"a" * 16)


def build() -> tuple[bytes, int, list[int]]:
    """Compile the parser; return its code, its entry, and where its blocks begin."""
    values = {"READY": READY, "DONE": DONE, "INPUT": INPUT}
    flags = "-O1 -ffreestanding -nostdlib -static -no-pie -fno-pic -mgeneral-regs-only"
    more = f"-fno-stack-protector -fcf-protection=none -Wl,-Ttext={CODE:#x},-estart,--build-id=none"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "parser.c")
        source.write_text("".join(f"#define {n} {v}\n" for n, v in values.items()) + PARSER)
        for command in (
            ["gcc", *flags.split(), *more.split(), "parser.c", "-o", "parser"],
            ["objcopy", "-O", "binary", "-j", ".text", "parser", "code"],
        ):
            subprocess.run(command, cwd=folder, check=True)
        text = subprocess.check_output(["objdump", "-d", "parser"], cwd=folder, text=True)
        code = Path(folder, "code").read_bytes()
    (entry,) = re.findall(r"^0*(\w+) <start>:", text, re.M)
    lines = re.findall(r"^ +(\w+):\t[^\t]+\t(\w+) *(\w*)", text, re.M)
    jumps = [line[1].startswith("j") for line in lines]
    behind = [line[0] for line, jumped in zip(lines[1:], jumps, strict=False) if jumped]
    targets = [line[2] for line, jumped in zip(lines, jumps, strict=True) if jumped]
    return code, int(entry, 16), sorted({int(address, 16) for address in behind + targets})


def mutated(data: bytes, chance: random.Random) -> bytes:
    """An input with some bytes changed, put in, or taken out."""
    new = bytearray(data)
    for _ in range(chance.choice((1, 2, 4))):
        at = chance.randrange(len(new) + 1)
        new[at : at + chance.choice((0, 0, 1, 4))] = chance.choice((*PIECES, chance.randbytes(1)))
    return bytes(new[:LONGEST])


def run(vcpu: arch.Vcpu, breakpoints: arch.Breakpoints) -> tuple[set[int], str]:
    """Run the guest until it is done or fails; return the new blocks, and how it fails."""
    blocks, kicks = set(), 0
    while kicks < 2:
        match breakpoints.run(vcpu):
            case arch.Breakpoint(pc):
                blocks.add(pc)
            case arch.Kicked():
                kicks += 1
            case arch.IoOut(port) if port == DONE:
                return blocks, ""
            case arch.Shutdown():
                at = vcpu.get_regs().rip
                inside = CODE <= at < CODE + 0x1000
                return blocks, f"exception at {at:#x}" if inside else "left its code"
            case arch.MmioRead(address) | arch.MmioWrite(address):
                return blocks, f"touched {address:#x}"
    return blocks, "did not end"


def fuzz(seconds: float, folder: Path) -> set[str]:
    """Fuzz for a time; keep inputs that fail in a folder, one for each way to fail."""
    folder.mkdir(exist_ok=True)
    code, entry, blocks = build()
    chance, corpus, failures, runs, begin = random.Random(1), [b"IMG\1R\2ab"], set(), 0, time.time()
    with arch.GuestMemory(0x11_0000) as memory, arch.Vm(memory, track_dirty=True) as vm:
        memory.write(CODE, code)
        start = arch.Long64(entry, rsp=STACK)
        arch.configure_system(vm, start)
        arch.configure_vcpu(vm.vcpus[0], start)
        assert isinstance(vm.vcpus[0].run(), arch.IoOut)  # it is ready
        breakpoints = arch.Breakpoints(vm, halting=True)
        breakpoints.add_once(blocks)
        ready, over = vm.take_snapshot(), Event()
        Thread(target=kick, args=(vm.vcpus[0], over), daemon=True).start()
        while (passed := time.time() - begin) < seconds:
            data = mutated(chance.choice(corpus), chance)
            vm.reset_to(ready)
            memory.write(INPUT, len(data).to_bytes(4, "little") + data)
            new, failure = run(vm.vcpus[0], breakpoints)
            runs += 1
            if new:  # from now on without their breakpoints
                corpus.append(data)
                vm.reset_to(ready)
                for block in new:
                    memory.write(block, code[block - CODE : block - CODE + 1])
                ready = vm.take_snapshot()
            if failure and failure not in failures:
                failures.add(failure)
                (folder / failure.replace(" ", "-")).write_bytes(data)
                print(f"{failure}: {data!r}{' ' * 20}")
            if runs % 500 == 0:
                found = f"{len(blocks) - len(breakpoints)} of {len(blocks)} blocks"
                print(f"{runs} runs, {runs / passed:.0f} a second, {found}", end="\r", flush=True)
        over.set()
    print()
    return failures


def kick(vcpu: arch.Vcpu, over: Event) -> None:
    """Make a run that never ends return."""
    while not over.wait(0.05):
        vcpu.kick()


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["10", "crashes"][len(sys.argv) - 1 :]
    fuzz(float(arguments[0]), Path(arguments[1]))
