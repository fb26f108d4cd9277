"""The contracts: what every backend of a CPU offers, as protocols, one module for each CPU.

Backend modules satisfy them without deriving from anything. Use them to write code that takes any
backend; code that knows its hypervisor just imports that hypervisor's module.
"""
