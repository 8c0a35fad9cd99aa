"""Views: how a weight tensor is seen as matrices."""

from tailor.weights.views.blocks import Experts, Fused, Gates
from tailor.weights.views.convolution import Circulant, Grouped, Taps
from tailor.weights.views.rules import ByName, Standard
from tailor.weights.views.view import Flattened, Part, View

__all__ = [
    "Part",
    "View",
    "Flattened",
    "Taps",
    "Circulant",
    "Grouped",
    "Fused",
    "Gates",
    "Experts",
    "ByName",
    "Standard",
]
