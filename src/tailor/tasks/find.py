"""Finding a task by its name."""

import importlib
import os
import sys

from tailor.errors import TaskError
from tailor.tasks.digits import DIGITS
from tailor.tasks.task import Task

EMBEDDED = {"digits": DIGITS}


def find(name: str) -> Task:
    """The embedded task of that name, or the task at ``module:name``.

    Modules in the current folder are found, as with ``python -m``.

    Raises:
        TaskError: There is no such task, or its module does not import.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(EMBEDDED)
        raise TaskError(f"there is no task {name!r}; use {known}, or module:name for your own")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module can fail in any way
        said = f"{type(error).__name__}: {error}"
        raise TaskError(f"the module {module_name} of the task does not import: {said}") from error
    task = getattr(module, attribute, None)
    if not isinstance(task, Task):
        raise TaskError(
            f"{module_name} has no tailor.Task named {attribute!r}; "
            f"write {attribute} = tailor.Task(name=..., build=..., train=...) there"
        )
    return task
