"""What the layers of a network see on the user's data.

::

    seen        sums over the inputs of one matrix
    vectors     the vectors that a module multiplies with its matrix
    watch       hooks that add them up
    collect     a pass over batches
"""

from tailor.stages.inputs.collect import collect
from tailor.stages.inputs.seen import Inputs
from tailor.stages.inputs.watch import Watch, watch

__all__ = ["Inputs", "Watch", "collect", "watch"]
