"""How many patients a model needs: Riley's criteria for developing one, and for validating it elsewhere.

Development: Riley et al., BMJ 2020;368:m441. External validation: Riley et al., Statistics in Medicine
2021;40:4230 (calibration and AUC) with the targets of their paper. What has to be assumed beforehand, an AUC and a
prevalence, is an argument everywhere and stands in the results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit
from scipy.stats import norm

from feature_store.errors import UsageError
from models.evaluation.inputs import FloatArray

SHRINKAGE = 0.9
OPTIMISM = 0.05
RISK_MARGIN = 0.05
Z = float(norm.isf(0.025))

OE_WIDTH, SLOPE_WIDTH, AUC_WIDTH = 0.2, 0.2, 0.1
"""Widths of 95 % intervals that an external validation should reach: O/E, calibration slope, AUC."""


@dataclass(frozen=True)
class DevelopmentSize:
    """Smallest number of patients by each criterion; ``needed`` meets all three.

    ``shrinkage``: uniform shrinkage of effects of 0.9 or nearer to 1; ``optimism``: apparent and adjusted
    Nagelkerke R² within 0.05; ``mean_risk``: the overall risk known within ± 0.05.
    """

    shrinkage: int
    optimism: int
    mean_risk: int

    @property
    def needed(self) -> int:
        return max(self.shrinkage, self.optimism, self.mean_risk)


@dataclass(frozen=True)
class ValidationSize:
    """Smallest number of patients for 95 % intervals of the stated widths; ``needed`` meets all of them."""

    observed_expected: int
    calibration_slope: int
    auc: int

    @property
    def needed(self) -> int:
        return max(self.observed_expected, self.calibration_slope, self.auc)


def highest_r2(prevalence: float) -> float:
    """The largest Cox–Snell R² that an outcome of this prevalence allows."""
    _check(prevalence)
    return float(1 - (prevalence**prevalence * (1 - prevalence) ** (1 - prevalence)) ** 2)


def r2_of_auc(area: float, prevalence: float) -> float:
    """Cox–Snell R² of a model with this AUC (Riley, Van Calster and Collins, Statistics in Medicine 2021;40:859).

    Their assumption, scores that are normal with equal spread in both outcomes, by quadrature rather than by
    simulated patients: the logistic model is then exact, and R² = 1 − exp(−2 × its gain of log-likelihood a patient).
    """
    _check(prevalence)
    if not 0.5 <= area < 1:
        raise UsageError(f"An anticipated AUC lies in 0.5 to 1, found {area}.", action="Give one like 0.75.")
    distance = math.sqrt(2) * float(norm.ppf(area))
    x, w = _normal()
    base = math.log(prevalence / (1 - prevalence))
    of_events = (w * log_expit(base + distance * (x + distance / 2))).sum()
    of_others = (w * log_expit(-(base + distance * (x - distance / 2)))).sum()
    null = prevalence * math.log(prevalence) + (1 - prevalence) * math.log(1 - prevalence)
    gain = prevalence * float(of_events) + (1 - prevalence) * float(of_others) - null
    return 1 - math.exp(-2 * max(gain, 0.0))


def development_size(parameters: int, r2: float, prevalence: float) -> DevelopmentSize:
    """Patients needed to fit ``parameters`` candidate parameters (every column looked at, not those selected).

    ``r2``: the anticipated Cox–Snell R². UsageError where it is not between 0 and what the prevalence allows.
    """
    most = highest_r2(prevalence)
    if parameters < 1 or not 1e-9 < r2 < most:
        raise UsageError(
            f"{parameters} parameters and an R² of {r2:.3g} have no sample size (R² lies in 0 to {most:.3g} here).",
            action="Give at least one parameter and an R² that can be.",
        )
    shrinkage_of_optimism = r2 / (r2 + OPTIMISM * most)
    return DevelopmentSize(
        shrinkage=_patients(parameters, r2, SHRINKAGE),
        optimism=_patients(parameters, r2, shrinkage_of_optimism),
        mean_risk=math.ceil((Z / RISK_MARGIN) ** 2 * prevalence * (1 - prevalence)),
    )


def expected_shrinkage(patients: int, parameters: int, r2: float) -> float:
    """The factor S by which effects fitted without penalty would have to be shrunk; 0 where nothing would be left.

    Solves n = parameters / ((S − 1) ln(1 − R² / S)), the first criterion, for S.
    """

    def missing(s: float) -> float:
        return parameters / ((s - 1) * math.log1p(-r2 / s)) - patients

    low, high = r2 + 1e-9, 1 - 1e-12
    grid = np.linspace(low, high, 2001)[1:-1]
    needed = np.array([missing(float(s)) for s in grid])
    if not (needed <= 0).any():
        return 0.0
    # Needed patients fall and then rise with S: the largest S that these patients still carry.
    last = int(np.flatnonzero(needed <= 0)[-1])
    return float(brentq(missing, float(grid[last]), high)) if needed[last] < 0 else float(grid[last])


def parameters_allowed(patients: int, r2: float) -> int:
    """How many candidate parameters these patients carry at a shrinkage of 0.9 (the first criterion)."""
    return math.floor(patients * (SHRINKAGE - 1) * math.log1p(-r2 / SHRINKAGE))


def validation_size(area: float, prevalence: float, predictor: FloatArray | tuple[float, float]) -> ValidationSize:
    """Patients needed to judge a model of this AUC elsewhere.

    ``predictor``: log-odds of the model in patients like those, or (mean, SD) of normal ones; it is taken as
    calibrated. The AUC's standard error is that of Newcombe (2006).
    """
    _check(prevalence)
    ratio = float(brentq(lambda se: math.exp(Z * se) - math.exp(-Z * se) - OE_WIDTH, 1e-6, 10))
    return ValidationSize(
        observed_expected=math.ceil((1 - prevalence) / (prevalence * ratio**2)),
        calibration_slope=math.ceil(_information(predictor) / (SLOPE_WIDTH / (2 * Z)) ** 2),
        auc=math.ceil(_for_auc(area, prevalence)),
    )


def expected_widths(patients: int, area: float, prevalence: float, predictor: FloatArray) -> dict[str, float]:
    """Widths of the 95 % intervals that so many patients can be expected to give: O/E, calibration slope, AUC."""
    ratio = math.sqrt((1 - prevalence) / (prevalence * patients))
    return {
        "observed_expected": math.exp(Z * ratio) - math.exp(-Z * ratio),
        "calibration_slope": 2 * Z * math.sqrt(_information(predictor) / patients),
        "auc": 2 * Z * _auc_error(area, prevalence, patients),
    }


def _patients(parameters: int, r2: float, shrinkage: float) -> int:
    return math.ceil(parameters / ((shrinkage - 1) * math.log1p(-r2 / shrinkage)))


def _information(predictor: FloatArray | tuple[float, float]) -> float:
    """Variance of the calibration slope times the number of patients."""
    if isinstance(predictor, tuple):
        x, w = _normal()
        eta = predictor[0] + predictor[1] * x
    else:
        eta = np.asarray(predictor, dtype=np.float64)
        w = np.full(len(eta), 1 / len(eta))
    weight = w * expit(eta) * expit(-eta)
    of_intercept, both, of_slope = weight.sum(), (weight * eta).sum(), (weight * eta**2).sum()
    left = of_intercept * of_slope - both**2
    return float(of_intercept / left) if left > 0 else math.inf


def _auc_error(area: float, prevalence: float, n: float) -> float:
    half = n / 2 - 1
    spread = area * (1 - area) * (1 + half * (1 - area) / (2 - area) + half * area / (1 + area))
    return math.sqrt(spread / (n * n * prevalence * (1 - prevalence)))


def _for_auc(area: float, prevalence: float) -> float:
    """Patients for an AUC's interval; of an AUC near 1 the fewest that can hold both outcomes are enough."""

    def too_wide(n: float) -> float:
        return _auc_error(area, prevalence, n) - AUC_WIDTH / (2 * Z)

    fewest = 2 / min(prevalence, 1 - prevalence)
    return fewest if too_wide(fewest) <= 0 else float(brentq(too_wide, fewest, 1e9))


def _normal() -> tuple[FloatArray, FloatArray]:
    """Points and weights of a standard normal: a fine trapezium, exact to 1e-12 for smooth functions."""
    x = np.linspace(-12, 12, 4801)
    w = norm.pdf(x) * (x[1] - x[0])
    return x, w / w.sum()


def _check(prevalence: float) -> None:
    if not 0 < prevalence < 1:
        raise UsageError(f"A prevalence lies between 0 and 1, found {prevalence}.", action="Give a share.")
