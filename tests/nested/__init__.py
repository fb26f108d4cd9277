"""The nested test machine: a stock Debian kernel with a working KVM, run without hardware.

An emulator interprets a CPU with virtualization extensions, so that /dev/kvm works on any host, and
it is a vendor's own KVM that the tests meet there: QEMU does for AMD's, Bochs for Intel's.
``machine.py`` is both the module to import and the command to try it with.
"""
