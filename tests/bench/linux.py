"""Measures how long a stock Linux takes to its userspace, beside QEMU's microvm on the same KVM.

Both boot the same kernel and initrd in the same nested machine, in turn; the clock stops when the
guest's first process has written its line. QEMU is Debian's, unpacked into the machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from figures import ratio, report
from nested.architecture import X86_64
from nested.machine import MachineFailed, provision
from nested.scenarios import PRODUCT
from nested.stock import stock_kernel, tiny_initrd
from vmm_arch_gen.fetch import debian

RUNS = 5
RACE = Path(__file__).with_name("race.py")
INIT = "echo userspace\nexec sleep 1000"
QEMU = "qemu-system-x86"


def main() -> None:
    machine = provision()
    with tempfile.TemporaryDirectory(prefix="vmm-arch-") as temporary:
        root = Path(temporary, "qemu")
        with debian.suite(X86_64.suite, X86_64.debian) as suite:
            suite.unpack(suite.closure(QEMU), root)
        files: dict[str, bytes | Path] = {
            "vmm_arch": PRODUCT,
            "race.py": RACE,
            "qemu/usr/bin": root / "usr/bin",
            "qemu/usr/lib/x86_64-linux-gnu": root / "usr/lib/x86_64-linux-gnu",
            "qemu/lib/x86_64-linux-gnu": root / "lib/x86_64-linux-gnu",
            "qemu/usr/share/qemu": root / "usr/share/qemu",
            "qemu/usr/share/seabios": root / "usr/share/seabios",
            "bzImage": stock_kernel(),
            "initrd": tiny_initrd(INIT),
        }
        result = machine.run(files, ["python3", "race.py", str(RUNS)], timeout=1800)
    if result.status:
        raise MachineFailed(f"race.py ended with status {result.status}:\n{result.stderr}")
    times: dict[str, list[float]] = json.loads(result.files["times.json"])
    report("stock Linux to userspace, vmm-arch run", times["vmm-arch"], "")
    report("stock Linux to userspace, qemu -M microvm", times["microvm"], "")
    ratio("vmm-arch run / microvm", times["vmm-arch"], times["microvm"], "1.25")


if __name__ == "__main__":
    try:
        main()
    except debian.Unavailable as reason:
        print(f"left out: {reason}")
