"""The ``tailor`` command, one module for each group of commands."""

from tailor.shell.cli.entry import main

__all__ = ["main"]
