"""What a run needs of its machine: memory, GPUs and time, computed from a model's config.json."""
