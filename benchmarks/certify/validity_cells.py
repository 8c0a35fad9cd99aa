"""A world of 64 cells in which the risk of every predictor is known: bounds, right and wrong.

A codeword is a table of answers; most leave the truth in about a quarter of the cells, so that a
search over all of them overfits. A rule whose name starts with "wrong" leaves out something that
its theorem asks for.
"""

import functools
import math

import numpy as np

from tailor.numerics import bounds as b

DELTA = 0.05
SPLIT = b.split_delta(DELTA, monte_carlo=0.01)
Results = dict[str, tuple[np.ndarray, np.ndarray]]  # name: the bounds printed, the true risks

CELLS, N, DRAWS = 64, 100, 2000
FORMS = ("binomial", "kl", "hoeffding")
FAMILIES = (4, 6, 8, 10)  # 2^b codewords each; two more bits say which family
BITS = np.concatenate([np.full(2**family, family + 2.0) for family in FAMILIES])
FAR = np.random.default_rng(0).random((len(BITS), CELLS)) < 0.25  # where it leaves the truth
PRIOR = -BITS * math.log(2)
HEATS = (0.1, 0.2, 0.4, 0.8, 1.6, 6.4)
BETAS = tuple(float(beta) for beta in np.geomspace(0.25, 8, 6))


def true_risk(far: np.ndarray, noise: float) -> np.ndarray:
    """Share of errors of answers that leave the truth in these cells."""
    return noise + (1 - 2 * noise) * far.mean(axis=-1)


def sample(n: int, repetitions: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Counts of labels that tell the truth, and of those that do not: (repetitions, 2, cells)."""
    false = rng.random((repetitions, n)) < noise
    kinds = rng.integers(CELLS, size=(repetitions, n)) + CELLS * false
    rows = np.arange(repetitions)[:, None] * 2 * CELLS + kinds
    return np.bincount(rows.ravel(), minlength=repetitions * 2 * CELLS).reshape(-1, 2, CELLS)


def errors_of(far: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Errors of each codeword on each sample: (repetitions, codewords)."""
    told = (counts[:, 0] - counts[:, 1]).astype(np.float64)
    return (told @ far.T + counts[:, 1].sum(1)[:, None]).round().astype(np.int64)


@functools.cache
def table(n: int, bits: float, delta: float) -> dict[str, np.ndarray]:
    """Occam's bounds for every number of errors."""
    found = [b.occam(k, n, bits, delta) for k in range(n + 1)]
    return {form: np.array([getattr(one, form) for one in found]) for form in FORMS}


def search(
    errors: np.ndarray, n: int, form: str = "binomial", delta: float = DELTA
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest bound over the whole code, and whose it is."""
    limits = np.empty(errors.shape)
    for bits in np.unique(BITS).tolist():
        of = bits == BITS
        limits[:, of] = table(n, bits, delta)[form][errors[:, of]]
    best = limits.argmin(axis=1)
    return limits[np.arange(len(best)), best], best


def occam(repetitions: int, noise: float, rng: np.random.Generator) -> Results:
    """A codeword searched over the whole code, by the bound itself."""
    errors, risks = errors_of(FAR, sample(N, repetitions, noise, rng)), true_risk(FAR, noise)
    found: Results = {}
    for form in FORMS:
        limits, best = search(errors, N, form)
        found[f"Occam, {form}"] = limits, risks[best]
    unpaid = table(N, 0.0, DELTA)["binomial"][errors.min(axis=1)]
    found["wrong: Occam, the bits not paid"] = unpaid, risks[errors.argmin(axis=1)]
    return found


def held_out(repetitions: int, noise: float, rng: np.random.Generator) -> Results:
    """One predictor, and the best of 64, on examples that trained none of them."""
    far = FAR[16:80]
    errors, risks = errors_of(far, sample(N, repetitions, noise, rng)), true_risk(far, noise)
    whole, shared = (
        np.array([b.held_out_upper(k, N, delta) for k in range(N + 1)])
        for delta in (DELTA, b.split_delta(DELTA, certificates=64).bound)
    )
    fewest, best = errors.min(axis=1), errors.argmin(axis=1)
    return {
        "held out, one predictor": (whole[errors[:, 0]], np.full(repetitions, risks[0])),
        "held out, best of 64 at delta/64": (shared[fewest], risks[best]),
        "wrong: held out, best of 64 at delta": (whole[fewest], risks[best]),
    }


def posterior(errors: np.ndarray, heat: float) -> tuple[np.ndarray, float]:
    """Weights proportional to prior * exp(-heat * errors), and their divergence in nats."""
    prior = PRIOR - np.log(np.exp(PRIOR).sum())
    logs = prior - heat * (errors - errors.min())
    logs -= np.log(np.exp(logs).sum())
    weights = np.exp(logs)
    return weights / weights.sum(), max(0.0, float(weights @ (logs - prior)))


def gibbs(repetitions: int, noise: float, rng: np.random.Generator) -> Results:
    """A posterior over the whole code, its temperature picked by the bound; all sums exact."""
    risks = true_risk(FAR, noise)
    rows = []
    for errors in errors_of(FAR, sample(N, repetitions, noise, rng)):
        tried = [posterior(errors, heat) for heat in HEATS]
        seen = [min(1.0, float(q @ errors) / N) for q, _ in tried]
        limits = [
            (
                b.pac_bayes_kl(share, N, kl, DELTA),
                b.catoni(share, N, kl, DELTA, 2.0),
                b.catoni_grid(share, N, kl, DELTA, BETAS),
                b.pac_bayes_kl(share, N, 0.0, DELTA),
            )
            for share, (_, kl) in zip(seen, tried, strict=True)
        ]
        best = np.array(limits).argmin(axis=0).tolist()
        row = [(limits[i][form], float(tried[i][0] @ risks)) for form, i in enumerate(best)]
        q, kl = tried[best[0]]
        errs = int(rng.binomial(DRAWS, seen[best[0]]))  # fresh network and example each time
        drawn = b.gibbs_risk_upper(errs, DRAWS, SPLIT.monte_carlo)
        row.append((b.pac_bayes_kl(drawn, N, kl, SPLIT.bound), row[0][1]))
        vote = float(true_risk(q @ FAR >= 0.5, noise))
        row.append((b.majority_vote_upper(row[0][0]), vote))
        rows.append(row)
    names = ("PAC-Bayes-kl", "Catoni, beta = 2", "Catoni, grid of 6 betas")
    names += ("wrong: PAC-Bayes-kl, the divergence left out",)
    names += ("PAC-Bayes-kl, risk from 2,000 draws", "PAC-Bayes-kl doubled, for the majority vote")
    pairs = np.array(rows)
    return {name: (pairs[:, i, 0], pairs[:, i, 1]) for i, name in enumerate(names)}


def subsample(repetitions: int, noise: float, rng: np.random.Generator) -> Results:
    """A codeword searched on 400 examples, whose errors are then counted on 60 draws."""
    n, m = 400, 60
    split = b.split_delta(DELTA, subsample=0.01)
    errors = errors_of(FAR, sample(n, repetitions, noise, rng))
    _, best = search(errors, n, delta=split.bound)
    seen = rng.binomial(m, errors[np.arange(repetitions), best] / n).tolist()
    counted = [b.held_out_upper(k, m, split.subsample) for k in range(m + 1)]
    averaged = [b.subsampled_upper(k / m, m, split.subsample, 1.0) for k in range(m + 1)]
    rows = [
        (
            table(n, bits, split.bound)["binomial"][int(counted[k] * n)],
            b.occam_bounded(averaged[k], n, bits, split.bound, 1.0).kl,
            table(n, bits, split.bound)["binomial"][k * n // m],
        )
        for bits, k in zip(BITS[best].tolist(), seen, strict=True)
    ]
    risk, limits = true_risk(FAR, noise)[best], np.array(rows)
    return {
        "Occam, errors counted on 60 of 400": (limits[:, 0], risk),
        "Occam, mean loss of 60 of 400": (limits[:, 1], risk),
        "wrong: 60 draws taken for all 400": (limits[:, 2], risk),
    }


def transfer(repetitions: int, noise: float, rng: np.random.Generator) -> Results:
    """A codeword is certified, and a predictor that answers otherwise in some cells is shipped."""
    m = 500
    split = b.split_delta(DELTA, disagreement=0.01)
    errors = errors_of(FAR, sample(N, repetitions, noise, rng))
    limits, best = search(errors, N, delta=split.bound)
    changed = rng.random((repetitions, CELLS)) < 0.3
    apart = rng.binomial(m, changed.mean(axis=1))
    moved = [
        b.disagreement_upper(limit, k, m, split.disagreement)
        for limit, k in zip(limits.tolist(), apart.tolist(), strict=True)
    ]
    shipped = true_risk(FAR[best] ^ changed, noise)
    return {
        "Occam, moved by the disagreement": (np.array(moved), shipped),
        "wrong: one predictor certified, another shipped": (limits, shipped),
    }
