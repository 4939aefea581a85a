"""The KL–reward frontier of each method over a sweep: what reward it reaches at what KL, and how sure that is.

A *setting* is all runs of a group that differ in nothing but the seed; its point is their mean. The frontier of a
group joins points by straight lines in the order of their KL, either the non-dominated ones alone (no other point of
the group has at most their KL and at least their reward) or all. What a line says can be had: answering at random with
one of two policies has the mean of their rewards, and at most the mean of their KLs, since KL is convex. So the
untrained model, at KL 0, is where every frontier begins; beyond its best point it stays level, as far as runs go.

Of the non-dominated points some are there by luck, so their frontier is a little too high, more so with more settings;
the one through all points is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np

from alignment.evaluation.agreement import Estimate
from alignment.evaluation.frontier_runs import Run, Sweep
from alignment.evaluation.statistics import mean_and_se

THROUGH = ("nondominated", "all")
BANDS = ("seeds", "prompts", "none")
GRID = 10  # places between two points at which a frontier and its band are given
RESAMPLES = 2_000
Line = tuple[np.ndarray, np.ndarray]  # knots: x, increasing, and y


@dataclass
class Setting:
    """Runs that differ in the seed alone. `x` and `y` are means over them; `left_out` says why there is no point.

    Standard errors are those between seeds; of a single run, those over its prompts.
    """

    group: str
    label: str
    runs: list[Run]
    x: float = math.nan
    y: float = math.nan
    x_se: float = math.nan
    y_se: float = math.nan
    nondominated: bool = False
    left_out: str = ""


@dataclass
class Group:
    """One frontier: `line` are its knots; `grid` is (x, y) of it, `low` and `high` are its 95 % band there."""

    name: str
    settings: list[Setting]
    line: Line | None = None
    span: tuple[float, float] = (math.nan, math.nan)  # KL of its trained points
    grid: Line = field(default_factory=lambda: (np.empty(0), np.empty(0)))
    low: np.ndarray = field(default_factory=lambda: np.empty(0))
    high: np.ndarray = field(default_factory=lambda: np.empty(0))
    area: Estimate = field(default_factory=lambda: Estimate(math.nan))  # between the common limits
    why_not: str = ""  # no frontier
    no_band: str = ""  # no interval

    @property
    def points(self) -> list[Setting]:
        return [setting for setting in self.settings if not setting.left_out]


@dataclass(frozen=True)
class Comparison:
    """Area of `first` minus that of `second` between `limits`, which both reach; None: they have none in common."""

    first: str
    second: str
    limits: tuple[float, float] | None
    area: Estimate


@dataclass
class Frontiers:
    """All that is to be shown of a sweep."""

    sweep: Sweep
    groups: list[Group]
    limits: tuple[float, float] | None  # common to all groups that have a frontier
    comparisons: list[Comparison]
    through: str
    band: str
    level: float  # of a comparison's interval: 95 % for all of them together (Bonferroni)
    start: float | None  # y of the untrained model, at x = 0


def non_dominated(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> np.ndarray:
    """Which points no other one beats: at most their x and at least their y, one of them strictly. (n,) -> bool (n,).

    Of equal points the first counts.
    """
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    order = np.lexsort((-up, across))
    highest = np.maximum.accumulate(np.concatenate([[-np.inf], up[order]]))
    kept = np.zeros(len(across), dtype=bool)
    kept[order[up[order] > highest[:-1]]] = True
    return kept


def line(x: np.ndarray, y: np.ndarray, through: str = "nondominated") -> Line:
    """The knots of the frontier of points (n,): the non-dominated ones, or all, with the mean where x is equal."""
    if through == "nondominated":
        kept = non_dominated(x, y)
        x, y = x[kept], y[kept]
    places, which = np.unique(x, return_inverse=True)
    return places, np.bincount(which, weights=y) / np.bincount(which)


def area(knots: Line, low: float, high: float) -> float:
    """Integral of the frontier from `low` to `high`, exact; beyond its knots it is level."""
    x, y = knots
    at = np.concatenate([[low], x[(x > low) & (x < high)], [high]])
    return float(np.trapezoid(np.interp(at, x, y), at))


def frontiers(
    sweep: Sweep,
    *,
    through: str = "nondominated",
    band: str = "seeds",
    from_start: bool = True,
    limits: tuple[float, float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Frontiers:
    """The frontier of every group, their areas between common limits, and the differences of these.

    Args:
        through: "nondominated" or "all" points.
        band: what 95 % intervals are over. "seeds": a setting's seeds are resampled, and each run moves by its chance
            over prompts; a group in which a setting has one seed gets none. "prompts": that chance alone, which is too
            narrow by whatever lies between seeds. "none". A prompt that several runs were asked has one draw, where
            each prompt's score is kept; else rewards, and always KLs, are drawn as normal with their standard error.
        from_start: the untrained model is a point of every group, at x = 0, where x is "kl" and the runs know its y.
        limits: of the areas. None: from the highest lowest x of any group's trained points to the lowest highest one.
        resamples, seed: of the bootstrap (percentile intervals).
    """
    before = [run.start for run in sweep.runs if run.finite and math.isfinite(run.start)]
    start = float(np.mean(before)) if from_start and sweep.x == "kl" and before else None
    groups = _groups(sweep.runs, start, through)
    drawn = [group for group in groups if group.line is not None]
    draws = _draws(drawn, band, start, through, resamples, seed)
    common = limits or _common(drawn)
    for group in drawn:
        _fill(group, draws.get(group.name), common, start)
    pairs = list(combinations(drawn, 2))
    level = 1 - 0.05 / max(1, len(pairs))
    compared = [_compare(a, b, draws, limits or _common([a, b]), level, start) for a, b in pairs]
    return Frontiers(sweep, groups, common, compared, through, band, level, start)


def _groups(runs: Sequence[Run], start: float | None, through: str) -> list[Group]:
    by_setting: dict[str, dict[str, Setting]] = {}
    for run in runs:
        settings = by_setting.setdefault(run.group, {})
        settings.setdefault(run.setting, Setting(run.group, run.setting, [])).runs.append(run)
    groups = []
    for name, settings in by_setting.items():
        for setting in settings.values():
            _mean(setting)
        group = Group(name, list(settings.values()))
        points = group.points
        if points:
            group.span = (min(point.x for point in points), max(point.x for point in points))
        if len(points) < 2:
            group.why_not = f"too few points for a frontier: {len(points)} of 2"
        else:
            x, y = _with_start([point.x for point in points], [point.y for point in points], start)
            for point, kept in zip(points, non_dominated(x, y), strict=False):
                point.nondominated = bool(kept)
            group.line = line(x, y, through)
        groups.append(group)
    return groups


def _mean(setting: Setting) -> None:
    """The setting's point. One run without a number leaves out the setting: the others alone would flatter it."""
    lost = [run for run in setting.runs if not run.finite]
    if lost:
        setting.left_out = f"{lost[0].left_out} in {len(lost)} of {len(setting.runs)} runs"
        return
    setting.x, setting.x_se = mean_and_se([run.x.mean for run in setting.runs])
    setting.y, setting.y_se = mean_and_se([run.y.mean for run in setting.runs])
    if len(setting.runs) == 1:
        setting.x_se, setting.y_se = setting.runs[0].x.se, setting.runs[0].y.se


def _with_start(x: Sequence[float], y: Sequence[float], start: float | None) -> Line:
    """The points, and behind them the untrained model."""
    more = [] if start is None else [start]
    return np.array([*x, *(0.0 for _ in more)]), np.array([*y, *more])


def _common(groups: Sequence[Group]) -> tuple[float, float] | None:
    """Between which x all groups have points; None where they do not overlap."""
    if not groups:
        return None
    low, high = max(group.span[0] for group in groups), min(group.span[1] for group in groups)
    return (low, high) if low < high else None


def _no_band(group: Group, band: str) -> str:
    """Why a group's intervals are not available; empty where they are."""
    alone = sum(len(point.runs) == 1 for point in group.points)
    if band == "seeds" and alone:
        return "one seed" if alone == len(group.points) else f"one seed in {alone} of {len(group.points)} settings"
    known = all(math.isfinite(value.se) for point in group.points for run in point.runs for value in (run.x, run.y))
    return (
        "" if band == "seeds" or known else "no standard errors over prompts" if band == "prompts" else "not asked for"
    )


def _draws(
    groups: Sequence[Group], band: str, start: float | None, through: str, resamples: int, seed: int
) -> dict[str, list[Line]]:
    """Resampled frontiers of each group that can have a band; the same draw of a shared prompt in all groups."""
    rng = np.random.default_rng(seed)
    asked = {prompt: None for group in groups for point in group.points for run in point.runs for prompt in run.prompts}
    places = {prompt: place for place, prompt in enumerate(asked)}
    count = max(1, len(places))
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float32)
    found: dict[str, list[Line]] = {}
    for group in groups:
        group.no_band = _no_band(group, band)
        if group.no_band:
            continue
        x, y = np.empty((resamples, len(group.points))), np.empty((resamples, len(group.points)))
        for place, point in enumerate(group.points):
            moved = [_moved(run, places, weights, rng) for run in point.runs]
            across, up = (np.stack([pair[part] for pair in moved], axis=1) for part in (0, 1))
            if band == "seeds":
                chosen = rng.integers(0, len(moved), size=across.shape)
                across, up = _resampled(across, chosen), _resampled(up, chosen)
            x[:, place], y[:, place] = across.mean(axis=1), up.mean(axis=1)
        found[group.name] = [
            line(*_with_start(list(across), list(up), start), through) for across, up in zip(x, y, strict=True)
        ]
    return found


def _resampled(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Values (resamples, seeds) of the chosen seeds. Resampling n values has (n - 1) / n of their variance: mended."""
    n = values.shape[1]
    mean = values.mean(axis=1, keepdims=True)
    return mean + (np.take_along_axis(values, chosen, 1) - mean) * math.sqrt(n / (n - 1))


def _moved(
    run: Run, places: dict[str, int], weights: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A run's x and y in each resample, (resamples,) both: the chance over its prompts. Unknown errors move nothing.

    Args:
        places: of each prompt in `weights`, (resamples, prompts): how often a resample has it.
    """
    resamples = len(weights)
    x = run.x.mean + np.nan_to_num(run.x.se) * rng.standard_normal(resamples)
    if run.scores is None:
        return x, run.y.mean + np.nan_to_num(run.y.se) * rng.standard_normal(resamples)
    known = np.isfinite(run.scores)
    drawn = weights[:, [places[prompt] for prompt, kept in zip(run.prompts, known, strict=True) if kept]]
    total = drawn.sum(axis=1)
    return x, np.divide(drawn @ run.scores[known], total, out=np.full(resamples, run.y.mean), where=total > 0)


def _reaches(group: Group, limits: tuple[float, float], start: float | None) -> bool:
    """Whether the group's frontier is known between the limits: nothing is said of a KL that no run went to."""
    return limits[0] >= (0.0 if start is not None else group.span[0]) and limits[1] <= group.span[1]


def _fill(group: Group, draws: list[Line] | None, limits: tuple[float, float] | None, start: float | None) -> None:
    """The band, and the area between the common limits."""
    assert group.line is not None
    knots = np.unique([*group.line[0], *(point.x for point in group.points)])
    steps = [np.linspace(low, high, GRID, endpoint=False) for low, high in pairwise(knots)]
    at = np.append(np.concatenate(steps), knots[-1]) if steps else knots
    group.grid = at, np.interp(at, *group.line)
    if draws:
        heights = np.stack([np.interp(at, *knots) for knots in draws])
        group.low, group.high = np.percentile(heights, [2.5, 97.5], axis=0)
    if limits is None or not _reaches(group, limits, start):
        return
    group.area = _estimate(area(group.line, *limits), [area(knots, *limits) for knots in draws or []], 0.95)


def _compare(
    first: Group,
    second: Group,
    draws: dict[str, list[Line]],
    limits: tuple[float, float] | None,
    level: float,
    start: float | None,
) -> Comparison:
    if limits is None or not (_reaches(first, limits, start) and _reaches(second, limits, start)):
        return Comparison(first.name, second.name, None, Estimate(math.nan))
    assert first.line is not None and second.line is not None
    value = area(first.line, *limits) - area(second.line, *limits)
    both = zip(draws.get(first.name, []), draws.get(second.name, []), strict=False)
    resampled = [area(one, *limits) - area(other, *limits) for one, other in both]
    return Comparison(first.name, second.name, limits, _estimate(value, resampled, level))


def _estimate(value: float, resampled: Sequence[float], level: float) -> Estimate:
    if not resampled:
        return Estimate(value)
    tail = 50 * (1 - level)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Estimate(value, float(low), float(high), len(resampled))
