"""Features without data: their laws, and that they are what their formulas say."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.tasks import Frozen
from tailor.tasks.edges import OrientedEdges, Quadratic, RandomFeatures, deskewed, stretched


def images(n: int, side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, side, side, generator=generator, dtype=torch.float64)


def by_hand(
    image: np.ndarray, cells: int, directions: int, power: float, contrast: float = 0.0
) -> np.ndarray:
    """The definition, pixel by pixel."""
    side = len(image)

    def at(y: int, x: int) -> float:
        return image[y, x] if 0 <= y < side and 0 <= x < side else 0.0

    found = np.zeros((directions, cells, cells))
    for y in range(side):
        for x in range(side):
            right, down = at(y, x + 1) - at(y, x - 1), at(y + 1, x) - at(y - 1, x)
            for b in range(directions):
                angle = 2 * math.pi * b / directions
                edge = max(0.0, math.cos(angle) * right + math.sin(angle) * down)
                for i in range(cells):
                    for j in range(cells):
                        far = [
                            abs(place + 0.5 - (cell + 0.5) * side / cells) * cells / side
                            for place, cell in ((y, i), (x, j))
                        ]
                        found[b, i, j] += edge * max(0, 1 - far[0]) * max(0, 1 - far[1])
    found **= power
    for i in range(cells):
        for j in range(cells):
            found[:, i, j] -= contrast * found[:, i, j].sum() / directions
    features = found.ravel()
    return np.append(features / np.linalg.norm(features), 0.1)


@pytest.mark.parametrize(("power", "contrast"), [(0.5, 0.0), (1.0, 0.0), (0.7, 0.9), (0.5, 1.0)])
def test_edges_follow_their_definition(power: float, contrast: float) -> None:
    x = images(2, 6)
    found = OrientedEdges(2, 5, power=power, contrast=contrast)(x)
    for i in range(2):
        expected = by_hand(x[i].numpy(), 2, 5, power, contrast)
        np.testing.assert_allclose(found[i], expected, atol=1e-12)


@pytest.mark.parametrize("deskew", [False, True])
def test_an_image_is_alone_and_any_shape_will_do(deskew: bool) -> None:
    width = 0.2 if deskew else 0.0
    layer = OrientedEdges(3, 4, deskew=deskew, width=width, contrast=0.5, concavities=0.5)
    x = images(5, 8)
    together = layer(x)
    assert together.shape == (5, layer.out_features)
    torch.testing.assert_close(layer(x[2:3])[0], together[2], rtol=0, atol=1e-14)
    torch.testing.assert_close(layer(x.flatten(1)), together, rtol=0, atol=0)
    torch.testing.assert_close(layer(x[:, None]), together, rtol=0, atol=0)
    assert layer(x.float()).dtype == torch.float32


def test_a_hole_sees_ink_on_all_sides_and_a_bay_does_not() -> None:
    ring = torch.zeros(2, 7, 7, dtype=torch.float64)
    ring[:, 1:6, 1:6] = 1.0
    ring[:, 2:5, 2:5] = 0.0
    ring[1, 2:5, 5] = 0.0  # open to the right
    layer = OrientedEdges(2, 4, power=1.0, concavities=1.0)
    found = layer(ring)[:, 16:32]
    assert layer.out_features == 33
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2).double())
    shares = found / found.sum(dim=1, keepdim=True) * torch.tensor([[49 - 16], [49 - 13]])
    assert float(shares[0, 15]) == pytest.approx(9)  # the inside of the ring
    assert float(shares[1, 15]) == pytest.approx(0)
    # The bay: the inside, and the gap with ink above and below and to the left.
    assert float(shares[1].max()) == pytest.approx(12)
    torch.testing.assert_close(layer(ring)[:, :16], OrientedEdges(2, 4, power=1.0)(ring)[:, :16])


def test_edges_have_no_tensors_and_an_empty_image_is_no_trouble() -> None:
    layer = OrientedEdges(3, 4, deskew=True, width=0.2, contrast=0.9)
    assert not layer.state_dict()
    assert bool((layer(torch.zeros(1, 8, 8))[0, :-1] == 0).all())


def test_deskewing_centres_an_image_and_takes_its_shear() -> None:
    image = torch.zeros(1, 15, 15, dtype=torch.float64)
    for y in range(3, 10):  # a slanted stroke, off the middle
        image[0, y, y // 2 + 4] = 1.0
    out = deskewed(image)[0]
    place = torch.arange(15, dtype=torch.float64)
    mass = out.sum()
    assert float((out.sum(1) * place).sum() / mass) == pytest.approx(7, abs=1e-6)
    assert float((out.sum(0) * place).sum() / mass) == pytest.approx(7, abs=0.1)
    rows, columns = (out.sum(1) * (place - 7)), (out * (place - 7)).sum(1)
    assert abs(float((columns * (place - 7)).sum() / (rows * (place - 7)).sum())) < 0.05


def test_deskewing_leaves_an_upright_image_in_the_middle() -> None:
    image = torch.zeros(1, 9, 9, dtype=torch.float64)
    image[0, 2:7, 3:6] = 1.0
    torch.testing.assert_close(deskewed(image), image)


def spread(image: torch.Tensor) -> float:
    off = torch.arange(image.shape[-1], dtype=torch.float64) - (image.shape[-1] - 1) / 2
    return float(((image.sum(0) * off**2).sum() / image.sum()).sqrt())


@pytest.mark.parametrize("wide", [3, 5, 9, 13, 27])
def test_stretching_gives_the_ink_its_width_and_leaves_its_rows(wide: int) -> None:
    image = torch.zeros(1, 29, 29, dtype=torch.float64)
    image[0, 8:20, 14 - wide // 2 : 15 + wide // 2] = 1.0
    factor = min(max(spread(image[0]) / 4.0, 1 / 3), 8 / 5)
    out = stretched(image, 4.0)[0]
    # Between pixels the ink is a tent, which has a variance of its own when it is stretched.
    width = math.sqrt((spread(image[0]) ** 2 + 1 / 6) / factor**2)
    assert spread(out) == pytest.approx(width, rel=0.02)
    assert bool((out[:8] == 0).all())
    assert bool((out[20:] == 0).all())
    torch.testing.assert_close(out, out.flip(1))


def test_of_a_width_all_images_of_a_shape_look_alike() -> None:
    slim = torch.zeros(1, 28, 28, dtype=torch.float64)
    wide = slim.clone()
    slim[0, 6:22, 11:17] = 1.0
    wide[0, 6:22, 8:20] = 1.0
    plain, layer = OrientedEdges(4, 8, deskew=True), OrientedEdges(4, 8, deskew=True, width=0.16)
    assert float((layer(slim) - layer(wide)).norm()) < 0.3 * float(
        (plain(slim) - plain(wide)).norm()
    )
    assert "width=0.16" in repr(layer)


def test_random_features_are_the_kernel_of_their_name() -> None:
    x = images(6, 2).flatten(1)
    layer = RandomFeatures(4, 20_001, seed=1, kind="fourier", scale=0.7)
    features = layer(x)[:, :-1]
    kernel = features @ features.T * 2 / features.shape[1]
    gaps = torch.cdist(2 * x, 2 * x)
    torch.testing.assert_close(kernel, torch.exp(-(0.7**2) * gaps**2 / 2), rtol=0, atol=0.05)


def test_random_features_repeat_and_are_paid_for_unless_frozen() -> None:
    x = images(3, 2).flatten(1)
    layer = RandomFeatures(4, 9, seed=3)
    torch.testing.assert_close(layer(x), RandomFeatures(4, 9, seed=3)(x), rtol=0, atol=0)
    assert not torch.equal(layer(x), RandomFeatures(4, 9, seed=4)(x))
    assert set(layer.state_dict()) == {"weight", "shift"}
    net = nn.Sequential(Frozen(layer, statement="random, seed 3"), nn.Linear(9, 2, bias=False))
    assert set(net.state_dict()) == {"1.weight"}


def test_quadratic_features_are_all_products() -> None:
    x = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)  # -1, 0, 1
    layer = Quadratic(3)
    assert layer(x)[0].tolist() == [-1, 0, 1, 1, 0, -1, 0, 0, 1, 1]
    assert layer.out_features == 10


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OrientedEdges(0, 4), "at least 1 cell"),
        (lambda: OrientedEdges(2, 4, width=0.2), "needs deskew=True, but is 0.2"),
        (lambda: OrientedEdges(2, 4, deskew=True, width=-1.0), "at least 0"),
        (lambda: OrientedEdges(2, 4)(torch.zeros(1, 5)), "square images of one channel"),
        (lambda: RandomFeatures(4, 1), "2 features"),
        (lambda: Quadratic(0), "at least one input"),
    ],
)
def test_refusals(make: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()  # type: ignore[operator]
