"""ResNet-18 for images of 32 x 32 pixels, in plain PyTorch.

He et al. (2016), *Deep Residual Learning for Image Recognition*, with the stem that is usual for
small images: one 3 x 3 convolution, no pooling. 21 matrices with 11,164,352 weights (10 classes).
"""

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two 3 x 3 convolutions around which the input passes, projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet18(nn.Module):
    """Images (n, 3, 32, 32) to scores (n, classes)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs = WIDTHS[0]
        for place, width in enumerate(WIDTHS, start=1):
            stride = 1 if place == 1 else 2
            stage = nn.Sequential(Block(inputs, width, stride), Block(width, width, 1))
            self.add_module(f"layer{place}", stage)
            inputs = width
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = functional.relu(self.bn1(self.conv1(x)))
        for place in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{place}")(x)
        return self.fc(x.mean(dim=(2, 3)))


def resnet18(classes: int = 10) -> ResNet18:
    """A network with fresh weights; set ``torch.manual_seed`` before."""
    return ResNet18(classes)
