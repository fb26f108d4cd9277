"""The facts of one target's ABI: C types, declarations, layouts, and the .abi text form."""
