"""Checkpoints and model folders: written beside training, checked, read at any size."""
