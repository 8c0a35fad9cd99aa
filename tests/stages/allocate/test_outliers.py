"""OWL against its definition, with unequal blocks."""

import numpy as np
import pytest
import torch

from tailor.errors import NonFinite, UsageError
from tailor.stages.allocate import OWL
from tailor.stages.inputs import Inputs
from tests.stages.allocate.layers import SCORE, layers, total_dropped


def network(blocks=4, width=30, seed=0):
    """Two matrices a block and what they see; later blocks have more large weights."""
    generator = torch.Generator().manual_seed(seed)
    tensors, inputs = {}, {}
    for b in range(blocks):
        for name, rows in (("up", 50), ("down", 20)):
            w = torch.randn(rows, width, generator=generator)
            heavy = torch.rand(rows, width, generator=generator) < 0.01 * b
            key = f"model.layers.{b}.{name}.weight"
            tensors[key] = torch.where(heavy, 30 * w, w)
            squares = torch.rand(width, generator=generator, dtype=torch.float64)
            inputs[key] = Inputs(count=100, squares=100 * squares)
    return tensors, inputs


def owl(tensors, inputs, sparsity, threshold, strength):
    """The authors' steps, block by block, for blocks of one size."""
    shares = []
    for b in range(4):
        scores = np.concatenate(
            [
                (w.double().abs() * inputs[name].squares.sqrt()).flatten().numpy()
                for name, w in tensors.items()
                if name.startswith(f"model.layers.{b}.")
            ]
        )
        shares.append((scores > threshold * scores.mean()).mean())
    o = np.array(shares)
    stay = (o - o.min()) / (o.max() - o.min()) * 2 * strength
    stay = stay - stay.mean() + 1 - sparsity
    return o, 1 - stay


@pytest.mark.parametrize(("threshold", "strength"), [(5.0, 0.08), (3.0, 0.2)])
def test_owl_is_its_definition(threshold, strength):
    tensors, inputs = network()
    rule = OWL(threshold=threshold, strength=strength)
    found = rule.allocate(layers(tensors), 0.6, score=SCORE, inputs=inputs)
    o, expected = owl(tensors, inputs, 0.6, threshold, strength)
    assert len(set(o)) > 1
    for name, w in tensors.items():
        b = int(name.split(".")[2])
        assert found.metric[name] == o[b]
        assert found.ratio(name) == pytest.approx(expected[b], abs=1.001 / w.numel())
    assert total_dropped(found) == round(0.6 * sum(w.numel() for w in tensors.values()))


def test_the_sparsity_is_met_by_blocks_of_different_size():
    tensors, inputs = network()
    name = "model.layers.3.up.weight"
    tensors[name] = tensors[name].repeat(10, 1)
    found = OWL().allocate(layers(tensors), 0.6, score=SCORE, inputs=inputs)
    assert total_dropped(found) == round(0.6 * sum(w.numel() for w in tensors.values()))
    ratios = [found.ratio(f"model.layers.{b}.up.weight") for b in range(4)]
    assert max(ratios) - min(ratios) == pytest.approx(0.16, abs=0.002)


def test_norms_count_and_their_scale_does_not():
    tensors, inputs = network()
    scaled = {n: Inputs(count=1, squares=1e6 * one.squares) for n, one in inputs.items()}
    rule = OWL()
    first = rule.allocate(layers(tensors), 0.6, score=SCORE, inputs=inputs)
    assert rule.allocate(layers(tensors), 0.6, score=SCORE, inputs=scaled).drop == first.drop
    lopsided = {n: Inputs(count=1, squares=one.squares**4) for n, one in inputs.items()}
    assert rule.allocate(layers(tensors), 0.6, score=SCORE, inputs=lopsided).drop != first.drop


def test_a_convolution_sees_patches():
    weight = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    inputs = {"conv": Inputs(count=5, squares=torch.ones(12, dtype=torch.float64))}
    found = OWL(threshold=2.0).allocate(layers({"conv": weight}), 0.5, score=SCORE, inputs=inputs)
    size = weight.abs()
    assert found.metric["conv"] == pytest.approx(float((size > 2 * size.mean()).float().mean()))
    assert found.note == "uniform, since all blocks have one share of outliers"


def test_refusals():
    tensors, inputs = network()
    with pytest.raises(UsageError, match=r"OWL needs what model\.layers\.0\.up\.weight sees"):
        OWL().allocate(layers(tensors), 0.6, score=SCORE)
    name = "model.layers.2.down.weight"
    short = inputs | {name: Inputs(count=5, squares=torch.ones(12, dtype=torch.float64))}
    with pytest.raises(UsageError, match="has 30 inputs, but norms of 12 were given"):
        OWL().allocate(layers(tensors), 0.6, score=SCORE, inputs=short)
    nan = inputs | {
        name: Inputs(count=5, squares=torch.full((30,), torch.nan, dtype=torch.float64))
    }
    with pytest.raises(NonFinite, match=r"some inputs of model\.layers\.2\.down\.weight are NaN"):
        OWL().allocate(layers(tensors), 0.6, score=SCORE, inputs=nan)
    with pytest.raises(UsageError, match="threshold must be above 0 and strength in"):
        OWL(strength=0.6)
