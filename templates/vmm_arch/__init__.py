"""vmm-arch: the arch layer of a virtual machine monitor, for Python.

:mod:`vmm_arch.abi` holds the raw ABI of each hypervisor on each CPU: constants, ioctl numbers and
records with exactly the layout that the hypervisor expects.
"""
