"""The nested test machine: a stock Debian kernel with a working KVM, run by QEMU without hardware.

QEMU interprets a CPU with virtualization extensions, so that /dev/kvm works on any host, and it is
a vendor's own KVM that the tests meet there. ``machine.py`` is both the module to import and the
command to try it with.
"""
