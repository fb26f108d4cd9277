"""Devices for any CPU: the bus that routes accesses to them, and a serial port."""
