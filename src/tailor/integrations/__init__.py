"""Penalties, noise and a monitor in training loops of other packages.

::

    transformers, lightning      a callback for the Trainer of each
    extras                       what both do: attach to optimizers, keep a state, look

Nothing here is imported by tailor itself: import the module of the package that you use.
"""
