"""kvm-unit-tests over this package's API, beside QEMU: see README.md."""
