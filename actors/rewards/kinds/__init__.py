"""The built-in task types, a file each; ``actors/rewards/task_types.py`` names them."""
