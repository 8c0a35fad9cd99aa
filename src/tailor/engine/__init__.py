"""Where independent tasks run: here, in processes of this machine, or on a Ray cluster."""

from tailor.engine.interface import Engine
from tailor.engine.local import Local
from tailor.engine.ray import Ray

__all__ = ["Engine", "Local", "Ray"]
