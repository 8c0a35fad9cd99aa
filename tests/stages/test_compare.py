"""Models side by side, and what may be said of a rank correlation."""

import pytest
import torch
from scipy import stats

from tailor import records
from tailor.errors import UsageError
from tailor.stages.analyze import analyze
from tailor.stages.compare import Comparison, compare


def model(seed, heavy=0.0, width=40, label=None):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(width, generator=generator) ** -heavy
    state = {
        "a.weight": torch.randn(60, width, generator=generator) * scales,
        "b.weight": torch.randn(width, 50, generator=generator),
    }
    return analyze(state, label=label or f"model {seed}")


def family(count, **options):
    return [model(seed, heavy=seed / count, **options) for seed in range(count)]


def test_changes_are_those_of_the_first_and_the_last_model():
    first, middle, last = model(0), model(1), model(2, heavy=1.5)
    found = compare([first, middle, last])
    assert [one.source for one in found.models] == ["model 0", "model 1", "model 2"]
    assert [layer.name for layer in found.layers] == ["a.weight", "b.weight"]
    for change, *layers in zip(found.layers, first.layers, middle.layers, last.layers, strict=True):
        fits = [layer.spectrum for layer in layers]
        assert change.alpha == tuple(fit.alpha for fit in fits)
        assert change.change == fits[-1].alpha - fits[0].alpha
        assert change.apart == (fits[0].high < fits[-1].low or fits[-1].high < fits[0].low)
        assert change.stable_rank == tuple(layer.stable_rank for layer in layers)
    assert found.layers[0].apart
    assert (found.predictions, found.quality, found.caveats) == ((), "", ())


def test_summaries_are_means_and_medians_of_the_matrices():
    one, other = model(0), model(1)
    found = compare([one, other]).models[0]
    frame = one.to_frame()
    assert found.mean["alpha"] == pytest.approx(frame["alpha"].mean())
    assert found.median["stable_rank"] == pytest.approx(frame["stable_rank"].median())
    assert found.weights == 60 * 40 + 40 * 50


def test_matrices_of_one_model_only_are_named():
    extra = analyze({"a.weight": torch.randn(60, 40), "c": torch.randn(30, 30)}, label="extra")
    found = compare([model(0), extra])
    assert found.unmatched == ("b.weight (model 0)", "c (extra)")


def test_a_matrix_without_a_fit_has_no_change():
    small = analyze({"a.weight": torch.randn(60, 8), "b.weight": torch.randn(40, 50)}, label="s")
    (a, b) = compare([small, model(1)]).layers
    assert (a.alpha[0], a.change, a.apart) == (None, None, False)
    assert b.change is not None


def test_correlations_equal_scipy_and_p_values_are_corrected_as_holm_does():
    models = family(7)
    quality = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.0]
    found = compare(models, quality=quality, named="test error")
    frame = found.to_frame()
    assert frame["test error"].tolist() == quality
    ps = sorted(one.correlation.p for one in found.predictions)
    assert [one.correlation.p for one in found.predictions] == ps
    worst = 0.0
    for place, one in enumerate(found.predictions):
        rho = stats.spearmanr(frame[one.metric], quality).statistic
        assert one.correlation.rho == pytest.approx(rho)
        worst = max(worst, min(1.0, one.correlation.p * (len(ps) - place)))
        assert one.corrected_p == pytest.approx(worst)


@pytest.mark.parametrize("named", ["", "source", "matrices", "weights"])
def test_a_name_that_is_taken_is_refused(named):
    with pytest.raises(UsageError, match=f"^the quality cannot be called '{named}'; choose"):
        compare(family(3), quality=[1, 2, 3], named=named)


def test_models_without_a_shared_matrix_have_an_empty_table_of_layers():
    frame = compare([model(0), analyze({"other": torch.eye(30)}, label="other")]).layers_to_frame()
    assert len(frame) == 0
    assert {"layer", "source", "alpha", "change", "apart"} <= set(frame)


def test_four_models_say_nothing_even_in_perfect_order():
    models = family(4)
    alphas = [float(one.to_frame()["alpha"].mean()) for one in models]
    found = compare(models, quality=alphas)
    perfect = next(one for one in found.predictions if one.metric == "mean_alpha")
    assert perfect.correlation.rho == pytest.approx(1)
    begins = "says nothing: with 4 models and "
    assert all(one.meaning.startswith(begins) for one in found.predictions)


def test_a_perfect_order_of_eight_is_told_apart_from_chance_unless_size_explains_it():
    models = [model(seed, heavy=seed / 8) for seed in range(8)]
    alphas = [float(one.to_frame()["alpha"].mean()) for one in models]
    by_name = {one.source: alpha for one, alpha in zip(models, alphas, strict=True)}
    found = {one.metric: one for one in compare(models, quality=by_name, named="loss").predictions}
    assert found["mean_alpha"].meaning.startswith("loss rises with it (p = ")
    assert "size" not in found["mean_alpha"].meaning
    grown = [model(seed, width=30 + seed) for seed in range(8)]
    sizes = [float(one.layers[0].columns) for one in grown]
    predictions = compare(grown, quality=sizes).predictions
    told = [one.meaning for one in predictions if one.corrected_p < 0.05]
    assert told
    assert all("size may explain it" in meaning for meaning in told)


def test_noise_is_not_said_to_predict():
    """Qualities drawn at random: false claims stay below the level of 5 %."""
    models = family(8)
    generator = torch.Generator().manual_seed(0)
    claims = 0
    for _ in range(60):
        quality = torch.rand(8, generator=generator).tolist()
        found = compare(models, quality=quality)
        claims += any(one.corrected_p <= 0.05 for one in found.predictions)
    assert stats.binomtest(claims, 60, 0.05, alternative="greater").pvalue > 0.01


def test_steps_of_one_run_are_pointed_out():
    same = compare(family(5), quality=[1.0, 2, 3, 4, 5]).caveats
    assert "not independent" in same[0]
    mixed = compare([model(i, width=30 + i) for i in range(3)], quality=[1.0, 2, 3]).caveats
    assert "differ in shape" in mixed[0]


@pytest.mark.parametrize(
    ("count", "quality", "sentence"),
    [
        (1, None, "needs at least two models, but got 1"),
        (2, [1.0], "1 qualities were given for 2 models"),
        (2, [1.0, float("nan")], "every quality must be a finite number"),
        (2, {"model 0": 1.0}, "there is no quality for model 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(count, quality, sentence):
    with pytest.raises(UsageError, match=sentence):
        compare(family(count), quality=quality)


def test_equal_names_are_refused():
    with pytest.raises(UsageError, match="two of the models have the same name"):
        compare([model(0), model(0)])


def test_two_models_have_no_correlation_and_the_record_survives_json(tmp_path):
    found = compare(family(2), quality=[1.0, 2.0])
    assert found.predictions == ()
    found = compare(family(3), quality=[1.0, 2.0, 3.0])
    assert records.load(Comparison, records.save(found, tmp_path / "c.json")) == found
    assert len(found.layers_to_frame()) == 6
