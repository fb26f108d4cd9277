"""From header folders and a C compiler to proven facts."""
