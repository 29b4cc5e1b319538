"""One figure a site, put together: random-effects meta-analysis with the interval of the next site.

For AUCs on the logit scale and calibration slopes as they are (Snell, Ensor, Debray, Moons and Riley, Statistical
Methods in Medical Research 2018;27:3505). Between-site variance by Paule and Mandel (1982), the mean's interval by
Hartung, Knapp, Sidik and Jonkman, the prediction interval by Higgins, Thompson and Spiegelhalter (JRSS A
2009;172:137) with k − 1 degrees of freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import chi2, t

from feature_store.errors import UsageError
from models.evaluation.auc import auc, delong_variance
from models.evaluation.inputs import Interval

MIN_SITES = 3
"""Fewer sites say nothing of the next one."""


@dataclass(frozen=True)
class AcrossSites:
    """``mean`` with ``ci``; ``tau``: the spread of true values between sites (SD, on the scale that was pooled).

    ``prediction``: 95 % interval of the true value in one more site; None with fewer than three sites. ``i2``: the
    share of the spread between sites that is not chance; ``p``: Cochran's test that there is none.
    """

    n_sites: int
    mean: float
    ci: Interval
    prediction: Interval | None
    tau: float
    i2: float
    p: float


def pool(estimates: ArrayLike, variances: ArrayLike, level: float = 0.95) -> AcrossSites:
    """``estimates`` and their sampling ``variances`` (k,), k >= 2. UsageError where these are none."""
    x, v = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if x.shape != v.shape or x.size < 2 or not np.isfinite(x).all() or not (v > 0).all():
        raise UsageError(
            f"{x.size} sites cannot be pooled.", action="Give two sites or more, each with a variance above 0."
        )
    k = x.size

    def spread(tau2: float) -> float:
        w = 1 / (v + tau2)
        return float((w * (x - (w * x).sum() / w.sum()) ** 2).sum())

    q = spread(0.0)
    # Paule and Mandel: the variance between sites at which the weighted spread is what chance gives.
    tau2 = 0.0
    if q > k - 1:
        high = float(x.var(ddof=1) + v.max())
        while spread(high) > k - 1:
            high *= 2
        tau2 = float(brentq(lambda value: spread(value) - (k - 1), 0.0, high, xtol=1e-14))
    w = 1 / (v + tau2)
    mean = float((w * x).sum() / w.sum())
    # Never narrower than without the correction: with few sites that agree by chance it would be.
    error = math.sqrt(max(spread(tau2) / (k - 1), 1.0) / w.sum())
    tail = (1 - level) / 2
    half = float(t.isf(tail, k - 1)) * error
    prediction = None
    if k >= MIN_SITES:
        reach = float(t.isf(tail, k - 1)) * math.sqrt(tau2 + error**2)
        prediction = (mean - reach, mean + reach)
    i2 = max(0.0, (q - (k - 1)) / q) if q > 0 else 0.0
    return AcrossSites(k, mean, (mean - half, mean + half), prediction, math.sqrt(tau2), i2, float(chi2.sf(q, k - 1)))


def logit_auc(y: ArrayLike, scores: ArrayLike) -> tuple[float, float] | None:
    """AUC on the logit scale and DeLong's variance of it; None where a site is too small or separates perfectly."""
    events = np.asarray(y) == 1
    if min(int(events.sum()), int((~events).sum())) < 2:
        return None
    area, variance = auc(y, scores), delong_variance(y, scores)
    if not 0 < area < 1 or not variance > 0:
        return None
    return math.log(area / (1 - area)), variance / (area * (1 - area)) ** 2


def back_to_auc(found: AcrossSites) -> dict[str, object]:
    """A pooled logit AUC as AUCs, fit for JSON; ``tau`` stays on the logit scale."""

    def areas(interval: Interval | None) -> list[float] | None:
        return None if interval is None else [1 / (1 + math.exp(-end)) for end in interval]

    return {
        "n_sites": found.n_sites,
        "auc": 1 / (1 + math.exp(-found.mean)),
        "auc_ci": areas(found.ci),
        "prediction_interval": areas(found.prediction),
        "tau_logit": found.tau,
        "i2": found.i2,
        "p_heterogeneity": found.p,
    }
