"""One thing of an ABI, shown to people: layouts, ioctl numbers, constants."""
