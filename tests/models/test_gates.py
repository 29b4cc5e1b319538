"""Gates: what they hold, fail and leave open, on simulated risks whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.gates import Gate, GateSettings, judge_gates

RANDOM = np.random.default_rng(7)
N = 400
LOGITS = RANDOM.normal(0, 1.5, N)
RISK = 1 / (1 + np.exp(-LOGITS))
Y = (RANDOM.uniform(size=N) < RISK).astype(int)
SITE = ["a" if i % 2 else "b" for i in range(N)]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values)))


def _gates(candidate: np.ndarray, current: np.ndarray | None = RISK, leakage: bool | None = True) -> dict[str, Gate]:
    found = judge_gates(Y, SITE, candidate, current, leakage, GateSettings())
    return {gate.name: gate for gate in found}


def test_a_calibrated_candidate_as_good_as_the_current_one_is_through() -> None:
    gates = _gates(RISK, _sigmoid(LOGITS + RANDOM.normal(0, 0.2, N)))
    assert {gate.verdict for gate in gates.values()} == {"holds"}
    low, high = gates["auc_difference"].figures["ci"]
    assert low <= gates["auc_difference"].figures["auc_difference"] <= high


@pytest.mark.parametrize(
    ("candidate", "shut"),
    [
        (_sigmoid(RANDOM.normal(0, 1.5, N)), {"auc_difference", "calibration_slope"}),  # a coin
        (_sigmoid(2.0 * LOGITS), {"calibration_slope"}),  # too sure
        (_sigmoid(0.5 * LOGITS), {"calibration_slope"}),  # too timid
        (_sigmoid(LOGITS + 0.8), {"calibration_in_the_large"}),  # too high throughout
        (_sigmoid(-LOGITS), {"auc_difference", "calibration_slope", "sites"}),  # upside down
    ],
)
def test_each_fault_shuts_its_own_gate(candidate: np.ndarray, shut: set[str]) -> None:
    found = {name for name, gate in _gates(candidate).items() if gate.verdict == "fails"}
    assert shut <= found <= shut | {"calibration_in_the_large"}


def test_too_few_patients_are_insufficient_and_hold_nothing() -> None:
    few = np.r_[np.flatnonzero(Y == 1)[:19], np.flatnonzero(Y == 0)[:30]]
    sites = [SITE[i] for i in few]
    gates = {g.name: g for g in judge_gates(Y[few], sites, RISK[few], RISK[few], True, GateSettings())}
    assert gates["auc_difference"].verdict == "insufficient"
    assert "19 events" in gates["auc_difference"].reason
    assert not gates["calibration_slope"].open
    enough = GateSettings(fewest=19)
    assert judge_gates(Y[few], sites, RISK[few], RISK[few], True, enough)[0].verdict == "holds"


def test_nothing_released_has_no_difference_and_the_other_gates_stand() -> None:
    gates = _gates(RISK, None)
    assert gates["auc_difference"].verdict == "not_applicable"
    assert gates["auc_difference"].open
    assert gates["calibration_slope"].verdict == "holds"


@pytest.mark.parametrize(("passed", "verdict"), [(True, "holds"), (False, "fails"), (None, "insufficient")])
def test_the_leakage_check_is_a_gate(passed: bool | None, verdict: str) -> None:
    assert _gates(RISK, leakage=passed)["leakage_check"].verdict == verdict


def test_one_site_worse_than_chance_is_named_although_the_whole_is_not() -> None:
    of_b = np.array(SITE) == "b"
    upside_down = np.where(of_b, 1 - RISK, RISK)
    gate = _gates(upside_down)["sites"]
    assert gate.verdict == "fails"
    assert "at b." in gate.reason
