"""vmm-arch: the arch layer of a virtual machine monitor, for Python.

Import the backend for a hypervisor on a CPU, such as :mod:`vmm_arch.kvm_x86_64`: it has everything
needed to create a machine, set the initial state of its vCPUs, and run them.

:mod:`vmm_arch.abi` holds the raw ABI of each hypervisor on each CPU: constants, ioctl numbers and
records with exactly the layout that the hypervisor expects. :mod:`vmm_arch.protocols` is for code
that works with any backend.
"""
