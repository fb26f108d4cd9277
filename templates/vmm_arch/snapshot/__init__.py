"""Snapshots of whole machines: kept in memory, forked into new machines."""
