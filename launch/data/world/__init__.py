"""The embedded task: a generated encyclopedia, questions about it and demonstrations."""

from launch.data.world.files import write_world

__all__ = ["write_world"]
