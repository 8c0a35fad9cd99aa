"""``report.html``: the records of a folder as one page that needs nothing else.

``document`` puts the page together from a header and one section for each stage: ``training``,
``run``, ``comparison``, ``analysis``, ``compression``, ``packed`` and ``certificate``. Sections
are made of ``blocks``, ``tables`` and ``text``; their figures come from ``tailor.shell.figures``.
"""

from tailor.shell.page.document import render

__all__ = ["render"]
