"""Set up every test: shapes in signatures are checked, and random examples are chosen."""

import os

from hypothesis import settings
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  (the hook below looks it up by name)

# Before any test imports tailor: each annotation such as Float[Tensor, "rows cols"] becomes a
# check at run time. Users do not pay for it.
install_import_hook("tailor", "tests.typechecker.checked")

# A slow first call (torch warming up) is no failure, so no deadline in any profile.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
# For another environment beside one in which every example is tried.
settings.register_profile("brief", deadline=None, derandomize=True, max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
