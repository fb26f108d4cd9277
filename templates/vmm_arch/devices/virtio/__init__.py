"""Virtio: devices that a guest drives through queues in its memory (Virtual I/O Device, version 1.2)."""
