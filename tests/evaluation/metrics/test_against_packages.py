"""The numbers of an evaluation against those of statsmodels, scikit-learn and alpaca-eval on the same data."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from alignment.evaluation.agreement import cohens_kappa, logistic
from alignment.evaluation.metrics.length_controlled import length_controlled
from alignment.evaluation.metrics.multiple import holm
from alignment.evaluation.metrics.ranking import SCALE, bradley_terry
from alignment.evaluation.metrics.win_rates import win_rate

pytestmark = pytest.mark.slow  # the packages alone take seconds to import


def games(k: int, prompts: int, seed: int) -> dict[tuple[str, str], list[float]]:
    """Outcomes 0, 0.5 and 1 between k models whose strengths are a logit apart in all."""
    rng = np.random.default_rng(seed)
    strengths = rng.permutation(np.linspace(-0.5, 0.5, k))
    found = {}
    for i in range(k):
        for j in range(i):
            won = (rng.random((2, prompts)) < expit(strengths[i] - strengths[j])).mean(axis=0)
            found[f"m{i}", f"m{j}"] = list(won)
    return found


@pytest.mark.parametrize(("k", "prompts"), [(2, 30), (5, 40), (7, 200)])
def test_bradley_terry_is_the_binomial_regression_of_statsmodels(k: int, prompts: int) -> None:
    sm = pytest.importorskip("statsmodels.api")
    outcomes = games(k, prompts, seed=k)
    x, y = [], []
    for (a, b), values in outcomes.items():
        row = np.zeros(k)
        row[int(a[1:])], row[int(b[1:])] = 1.0, -1.0
        x += [row[1:]] * len(values)  # strengths against model 0
        y += values
    groups = np.tile(np.arange(prompts), len(outcomes))
    found = sm.GLM(np.array(y), np.array(x), family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    strengths = np.concatenate([[0.0], found.params])
    ours = {row.model: row for row in bradley_terry(outcomes, prior=1e-7)}
    expected = 1000 + SCALE * (strengths - strengths.mean())
    assert [ours[f"m{i}"].rating for i in range(k)] == pytest.approx(expected, abs=1e-2)
    # The interval of a strength less the mean strength, by the sandwich with prompts as clusters.
    centring = np.eye(k)[:, 1:] - np.full((k, k - 1), 1.0 / k)
    errors = SCALE * np.sqrt(np.diag(centring @ found.cov_params() @ centring.T))
    widths = [ours[f"m{i}"].high - ours[f"m{i}"].low for i in range(k)]
    assert widths == pytest.approx(2 * 1.96 * errors, rel=0.2)


def test_holm_and_wilson_are_those_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 30):
        values = np.round(rng.random(n) ** 3, 2)  # with ties
        assert holm(values) == pytest.approx(multitest.multipletests(values, method="holm")[1])
    for won, n in ((7, 10), (0, 5), (400, 800), (1, 1)):
        found = win_rate([1.0] * won + [0.0] * (n - won))
        assert (found.low, found.high) == pytest.approx(proportion.proportion_confint(won, n, 0.05, "wilson"))


def test_kappa_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for n in (5, 40, 300):
        first = rng.choice([0.0, 0.5, 1.0], n, p=[0.4, 0.2, 0.4])
        second = np.where(rng.random(n) < 0.6, first, rng.choice([0.0, 0.5, 1.0], n))
        expected = metrics.cohen_kappa_score((2 * first).astype(int), (2 * second).astype(int))
        assert cohens_kappa(first, second, np.arange(n)).value == pytest.approx(expected)


def test_the_logistic_fit_is_that_of_statsmodels() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(500), rng.normal(size=500)], axis=1)
    groups = np.repeat(np.arange(125), 4)
    y = (rng.random(500) < expit(x @ [0.3, -0.8])).astype(float)
    found = sm.GLM(y, x, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    ours = logistic(x, y, groups)
    assert [each.value for each in ours] == pytest.approx(found.params, abs=1e-3)
    assert [(each.high - each.low) / 2 / 1.96 for each in ours] == pytest.approx(found.bse, rel=1e-2)


def annotations(n: int, seed: int) -> dict[str, np.ndarray]:
    """Soft preferences of an annotator that likes length, as those of AlpacaEval 2 are, and made-up difficulties."""
    rng = np.random.default_rng(seed)
    model, base = rng.integers(200, 2600, n), rng.integers(200, 2000, n)
    hard = rng.normal(size=n)
    apart = (model - base) / (model - base).std(ddof=1)
    p = expit(-0.3 + 0.8 * np.tanh(apart) - 0.5 * hard)
    return {"y": np.clip(rng.beta(2 * p, 2 * (1 - p)), 0, 1), "model": model, "base": base, "hard": hard}


@pytest.mark.parametrize("with_difficulty", [False, True])
def test_length_control_is_the_regression_of_statsmodels(with_difficulty: bool) -> None:
    sm = pytest.importorskip("statsmodels.api")
    data = annotations(600, seed=1)
    apart = data["model"] - data["base"]
    columns = [np.ones(600), np.tanh(apart / apart.std(ddof=1)), *([data["hard"]] if with_difficulty else [])]
    x = np.stack(columns, axis=1)
    found = sm.GLM(data["y"], x, family=sm.families.Binomial()).fit()
    x[:, 1] = 0.0
    ours = length_controlled(data["y"], data["model"], data["base"], data["hard"] if with_difficulty else None)
    assert ours.rate == pytest.approx(found.predict(x).mean(), abs=1e-4)
    assert ours.length_effect == pytest.approx(found.params[1], abs=1e-3)


@pytest.fixture
def alpaca(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """alpaca_eval.metrics.glm_winrate, without what the package imports for asking annotators."""
    spec = importlib.util.find_spec("alpaca_eval")
    if spec is None or spec.origin is None:
        pytest.skip("needs alpaca-eval")
    sklearn = pytest.importorskip("sklearn")
    pytest.importorskip("patsy")
    package = ModuleType("alpaca_eval")
    package.__path__ = [str(Path(spec.origin).parent)]
    monkeypatch.setitem(sys.modules, "alpaca_eval", package)
    if importlib.util.find_spec("pkg_resources") is None:  # gone from setuptools; only asked for the package's version
        monkeypatch.setitem(sys.modules, "pkg_resources", ModuleType("pkg_resources"))
    with sklearn.config_context():  # it switches on metadata routing for the whole process
        yield importlib.import_module("alpaca_eval.metrics.glm_winrate")
    for name in [name for name in sys.modules if name.startswith("alpaca_eval.")]:
        del sys.modules[name]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "settings", "apart"),
    [
        # Its own fit without a penalty to speak of is ours, and its cross-validated L1 penalty moves it by little.
        ("length_controlled_minimal", {"n_splits": 0, "C": 1e6, "tol": 1e-10, "max_iter": 10_000}, 2e-4),
        ("length_controlled_noreg", {"n_splits": 0, "C": 1e6, "tol": 1e-10, "max_iter": 10_000}, 2e-4),
        ("length_controlled_minimal", {"n_splits": 5}, 0.01),
        ("length_controlled_noreg", {"n_splits": 5}, 0.01),
        # That of the leaderboard also leans on annotations of its baseline told to be longer or shorter.
        ("length_controlled_v1", {"n_splits": 5}, 0.02),
    ],
)
def test_length_control_is_that_of_alpaca_eval(
    alpaca: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, name: str, settings: Any, apart: float
) -> None:
    pd = pytest.importorskip("pandas")
    n = 805
    data = annotations(n, seed)
    rng = np.random.default_rng(seed + 100)
    length = rng.normal(size=2 * n)
    gamed = {  # of the baseline against itself, by the same annotator: only length matters
        "index": np.tile(np.arange(n), 2),
        "instruction_difficulty": np.tile(data["hard"], 2),
        "preference": expit(0.8 * np.tanh(length)),
        "std_delta_len": -length,
        "not_gamed_baseline": False,
        "model": "gamed",
    }
    pd.DataFrame(gamed).to_csv(tmp_path / "gamed.csv", index=False)
    monkeypatch.setattr(alpaca, "hf_hub_download", lambda **_: str(tmp_path / "gamed.csv"))
    frame = pd.DataFrame(
        {
            "preference": data["y"] + 1,
            "index": np.arange(n),
            "output_1": ["x" * length for length in data["base"]],
            "output_2": ["x" * length for length in data["model"]],
            "generator_1": "baseline",
            "generator_2": "model",
            "annotator": "judge",
        }
    )
    glm = {**alpaca.GLM_INFO[name], "kwargs": settings}
    theirs = alpaca.get_length_controlled_winrate(frame, save_weights_dir=None, glm_info=glm)
    hard = None if name == "length_controlled_minimal" else data["hard"]
    ours = length_controlled(data["y"], data["model"], data["base"], hard, resamples=200)
    assert 100 * ours.raw == pytest.approx(theirs["win_rate"])
    assert ours.rate == pytest.approx(theirs["length_controlled_winrate"] / 100, abs=apart)
    assert ours.low < theirs["length_controlled_winrate"] / 100 < ours.high
    assert not math.isnan(ours.length_effect) and ours.rate < ours.raw
