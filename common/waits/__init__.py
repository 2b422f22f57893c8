"""What waits for what in a run: the catalogue of waits, their records, and the way to the root."""
