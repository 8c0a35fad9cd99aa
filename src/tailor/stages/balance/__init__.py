"""``TempBalance``: a learning rate for each layer, by the exponent of its spectrum.

Zhou et al. (2023), *Temperature Balancing, Layer-wise Weight Analysis, and Neural Network
Training* (arXiv 2312.00359). Layers whose spectrum has a light tail (large alpha) count as
trained too little and get a larger rate, those with a heavy tail a smaller one:

    f_i = (alpha_i - least alpha) / (largest alpha - least alpha) x (high - low) + low

times the rate that an ordinary schedule gives. Geometry and defaults are those of the authors'
code (github.com/YefanZhou/TempBalance): Hill's estimate from the median on, convolutions as one
matrix for each kernel position with all eigenvalues pooled, neither first convolution nor last
matrix, new factors once an epoch.

What that code does and this does not:

- With equal exponents ``numpy.interp`` gives every layer the largest factor. Here it is 1.
- A layer with more zero eigenvalues than others gets the exponent NaN, which can become the rate
  of all layers; fewer of them pull xmin down. Here zeros are left out, and a layer without an
  exponent keeps 1 and says why.
- Groups of the optimizer are told apart by their place. Here by the parameters in them.
- The rate of the schedule is overwritten, so the schedule has to be a function of one's own. Here
  any scheduler of PyTorch may step the same optimizer.
- It runs on CUDA alone, and the example of its README hands the optimizer a pair.
- ``fix-finger`` mixes a logarithm with a value (see ``XminPeak``).

Biases and batch norms go with their layer there, the norms by likeness of names. Here they keep
the plain rate unless the optimizer's group of the layer holds them, too.

**Does it help?** We could not show that it does. On digits, with the learning rate tuned for
either side and ten paired seeds, a network with two hidden layers made 0.8 points more errors
with it (95 % interval 0.5 to 1.0), and one with five made as many as without (-0.2, -1.0 to
0.6). See docs/balance.md. The gains that the paper reports are for large image networks, which
we have not trained.
"""

from tailor.stages.balance.factors import Assignment, assign
from tailor.stages.balance.groups import layer_groups
from tailor.stages.balance.scheduler import TempBalance

__all__ = ["TempBalance", "layer_groups", "assign", "Assignment"]
