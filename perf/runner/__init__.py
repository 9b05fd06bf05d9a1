"""The scripts of the performance laboratory."""
