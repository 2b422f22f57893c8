"""The journal of a run: what the coordinator decided, on the disk before anybody is told."""
