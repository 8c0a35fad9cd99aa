"""The ``tailor`` command."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tailor import __version__, records
from tailor.errors import RecordError, TailorError
from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.stages.analyze import Analyses, Analysis, analyze
from tailor.stages.certify import Certificate, Check, Verification, verify
from tailor.stages.compress import CompressedModel
from tailor import tasks

DONE, NO, MISUSE = 0, 1, 2
