"""vmm-arch: the arch layer of a virtual machine monitor, for Python.

Import the module of a hypervisor on a CPU, such as :mod:`vmm_arch.kvm_x86_64`: it has everything
that is needed to make a machine, put its vCPUs into a state to begin in, and run them.

:mod:`vmm_arch.abi` holds the raw ABI of each hypervisor on each CPU: constants, ioctl numbers and
records with exactly the layout that the hypervisor expects. :mod:`vmm_arch.protocols` is for code
that takes any hypervisor.
"""
