"""Nash-MD: tabular convergence under the bound of its theorem, and the pairwise matrix of policies.

Small scale: random games of 3 to 12 answers, in which everything is exact; and policies of `tiny` on a judge that goes
in a circle (alignment/reproduce/circle.py), with the names of the paper's table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.evaluation.agreement import Estimate
from alignment.reproduce import circle
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import NOT_MEASURED, exact, mean_of, over
from alignment.reproduce.lab import Lab
from alignment.reproduce.plots import canvas
from alignment.reproduce.report import Cell, Report, Section
from alignment.reproduce.rows import Row
from alignment.reproduce.table import Job, Settings, Table

SFT = "reference"
# P(row beats SFT, RLHF), PaLM 2 as the judge, 2,000 samples a cell, ±0.023
PUBLISHED = {
    "RLHF": (0.990, 0.500),
    "SP": (0.983, 0.489),
    "MD1": (0.982, 0.598),
    "MD2": (0.989, 0.519),
    "MD3": (0.987, 0.561),
    "MD4": (0.985, 0.501),
    "MD5": (0.982, 0.436),
    "MD6": (0.965, 0.284),
    "BR": (0.943, 0.148),
    "EMA": (0.970, 0.468),  # EMA1
}
MD1_AGAINST = {"SP": 0.592, "MD2": 0.575, "MD3": 0.530, "MD4": 0.631, "BR": 0.837}
ROUNDING = 1e-12  # nats
SCALES = {
    "smoke": {
        "games": 20,
        "game_steps": 200,
        "policies": ["RLHF", "MD1", "BR"],
        "steps": 3,
        "scorer_steps": 6,
        "prompts": 16,
        "answers": 8,
        "batch_size": 16,
    },
    "small": {
        "games": 1000,
        "game_steps": 2000,
        "policies": list(circle.POLICIES),
        "steps": 150,
        "scorer_steps": 140,
        "prompts": 64,
        "answers": 32,
        "batch_size": 32,
    },
}
SIZES = (3, 4, 5, 8, 12)  # answers in a game
TAU = 0.1


def jobs(settings: Settings, seeds: Sequence[int]) -> list[Job]:
    """A batch of games for each size, then the policies, seed by seed."""
    games = [{"part": "games", "answers": size, "seed": 0} for size in SIZES]
    return games + [{"part": "policy", "policy": p, "seed": seed} for seed in seeds for p in settings["policies"]]


def make(lab: Lab, settings: Settings, job: Job) -> Mapping[str, Any]:
    """A batch of games played to its end, or one trained policy."""
    if job["part"] == "games":
        return games(settings["games"] // len(SIZES), job["answers"], settings["game_steps"])
    keys = ("steps", "scorer_steps", "prompts", "answers", "batch_size")
    training = circle.Training(tau=TAU, **{key: settings[key] for key in keys})
    return {"rows": circle.run(job["policy"], job["seed"], training)}


def games(number: int, answers: int, steps: int) -> dict[str, Any]:
    """Nash-MD on random games: policies and steps that break a bound, and how much of it is used at most."""
    from alignment.tabular.dynamics import decaying, last_iterate_bound, nash_md, one_step_excess
    from alignment.tabular.games import kl, random_game
    from alignment.tabular.solutions import equilibrium

    game = random_game(np.random.default_rng(answers), number, answers)
    star, path = equilibrium(game), nash_md(game, steps)
    distances, bound = kl(star, path), last_iterate_bound(np.asarray(game.tau), steps)
    excess = one_step_excess(path, star, np.asarray(game.tau), decaying(np.asarray(game.tau)))
    scaled = distances * np.asarray(game.tau) ** 2
    times = np.unique(np.geomspace(1, steps + 1, 60).astype(int)) - 1
    return {
        "games": number,
        "steps": steps,
        "above_last_iterate": int((distances > bound).sum()),
        "above_one_step": int((excess > ROUNDING).sum()),
        "largest_share": float((distances / bound).max()),
        "times": times.tolist(),
        "furthest": scaled.max(1)[times].tolist(),
        "median": np.median(scaled, axis=1)[times].tolist(),
    }


def report(settings: Settings, rows: list[Row]) -> Report:
    """Claims, the games, and who beats whom."""
    played = [row for row in rows if row["job"]["part"] == "games"]
    shares = circle.with_equilibrium(policy_rows(rows), TAU)
    return Report(
        findings=[*of_the_games(played), *of_the_policies(shares)],
        sections=[games_section(played), published_section(shares), matrix_section(shares)],
        notes=[
            "The games are numpy in float64: nothing is sampled but the games themselves.",
            "The policies are `tiny` with answers of at most 4 tokens; the judge knows the style of an answer alone, "
            "and its verdict on two policies is computed from their shares of the styles. The paper's are T5X-L on "
            "TL;DR, judged by PaLM 2. Our start already wins about half of the time, so the first column is far lower.",
            "The authors say themselves that their table does not show Nash-MD ahead of RLHF in general.",
            "EMA is here the opponent of averaged parameters with a decay of 0.98; published is EMA1 (0.999).",
        ],
    )


def policy_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What circle.run gave, of all seeds."""
    return [each for row in rows if row["job"]["part"] == "policy" for each in row["rows"]]


NO_GAME = "policies above the bound"
BOUND = Claim(
    "KL(equilibrium, policy T) stays below 8 / (tau² (T + 1))", "theorem 1", NO_GAME, above=-0.5, below=0.5, digits=0
)
STEP = Claim(
    "each step stays below (1 - eta tau) KL + 2 eta²",
    "theorem 1",
    "steps above the bound",
    above=-0.5,
    below=0.5,
    digits=0,
)


def of_the_games(played: Sequence[Row]) -> list[Finding]:
    """Every policy of every game is checked, so there is no interval."""
    if not played:
        return [Finding(BOUND), Finding(STEP)]
    policies = sum(row["games"] * (row["steps"] + 1) for row in played)
    return [
        Finding(claim, exact(sum(row[key] for row in played)), f"all {policies:,} policies of {_games(played)} games")
        for claim, key in ((BOUND, "above_last_iterate"), (STEP, "above_one_step"))
    ]


def _games(played: Sequence[Row]) -> int:
    return sum(row["games"] for row in played)


def of_the_policies(shares: Mapping[str, np.ndarray]) -> list[Finding]:
    """Duels that the paper's table has, in points above a half."""
    margin = "P(first preferred) - 1/2"
    duels = [
        ("MD1", SFT, Claim("MD1 is preferred to SFT", "0.982", margin, above=0.0, digits=3)),
        ("MD1", "RLHF", Claim("MD1 is preferred to RLHF", "0.598", margin, above=0.0, digits=3)),
        ("MD1", "SP", Claim("MD1 is preferred to self-play", "0.592", margin, above=0.0, digits=3)),
        ("MD1", "BR", Claim("MD1 is preferred to best response", "0.837", margin, above=0.0, digits=3)),
        ("RLHF", "BR", Claim("RLHF is preferred to best response", "0.852", margin, above=0.0, digits=3)),
    ]
    found = [Finding(claim, minus(win(shares, *pair), 0.5), _over(shares, pair)) for *pair, claim in duels]
    claim = Claim(
        "a small mixture does better against RLHF than a large one",
        "MD1 0.598, MD6 0.284",
        "difference",
        above=0.0,
        digits=3,
    )
    ours = NOT_MEASURED
    if {"MD1", "MD6", "RLHF"} <= shares.keys():
        ours = mean_of(wins(shares, "MD1", "RLHF") - wins(shares, "MD6", "RLHF"))
    return [*found, Finding(claim, ours, _over(shares, ("MD1", "MD6")))]


def wins(shares: Mapping[str, np.ndarray], first: str, second: str) -> np.ndarray:
    """(S, P): P(first beats second) of each seed and prompt."""
    return np.einsum(
        "spk,kl,spl->sp", shares[first], circle.CIRCLE, np.broadcast_to(shares[second], shares[first].shape)
    )


def win(shares: Mapping[str, np.ndarray], first: str, second: str) -> Estimate:
    """P(first beats second) with its interval."""
    return mean_of(wins(shares, first, second)) if {first, second} <= shares.keys() else NOT_MEASURED


def minus(found: Estimate, what: float) -> Estimate:
    return Estimate(found.value - what, found.low - what, found.high - what, found.n)


def _over(shares: Mapping[str, np.ndarray], pair: Sequence[str]) -> str:
    return over(shares[pair[0]][:, :, 0]) if set(pair) <= shares.keys() else ""


def games_section(played: Sequence[Row]) -> Section:
    heads = [
        "answers",
        "games",
        "steps each",
        "policies above the bound",
        "steps above it",
        "share of the bound used, at most",
    ]
    keys = ("games", "steps", "above_last_iterate", "above_one_step", "largest_share")
    lines: list[list[Cell]] = [[row["job"]["answers"], *(row[key] for key in keys)] for row in played]
    return Section("Tabular games", heads, lines, digits=4)


def published_section(shares: Mapping[str, np.ndarray]) -> Section:
    heads = [
        "policy",
        "published: beats SFT",
        "ours",
        "published: beats RLHF",
        "ours",
        "published: MD1 beats it",
        "ours",
    ]
    lines: list[list[Cell]] = []
    for name in PUBLISHED:
        if name in shares:
            beaten = win(shares, "MD1", name) if name != "MD1" else None
            to_sft, to_rlhf = PUBLISHED[name]
            ours = [win(shares, name, other) for other in (SFT, "RLHF")]
            lines.append([name, to_sft, ours[0], to_rlhf, ours[1], MD1_AGAINST.get(name), beaten])
    return Section("The paper's table (published ±0.023)", heads, lines, digits=3)


def matrix_section(shares: Mapping[str, np.ndarray]) -> Section:
    lines: list[list[Cell]] = [
        [row, *(win(shares, row, column).value for column in shares)] for row in shares if row != "equilibrium"
    ]
    return Section("P(row preferred to column)", ["", *shares], lines, digits=3)


def draw(settings: Settings, rows: list[Row]) -> Any:
    """Distances under the bound, and the matrix."""
    played = [row for row in rows if row["job"]["part"] == "games"]
    shares = circle.with_equilibrium(policy_rows(rows), TAU)
    figure, axes = canvas(11, 4.6, columns=2)
    bound, matrix = axes[0]
    times = np.array(played[0]["times"])
    bound.loglog(times + 1, 8 / (times + 1), color="black", label="the bound, 8 / (T + 1)")
    bound.loglog(
        times + 1, np.max([row["furthest"] for row in played], axis=0), label=f"the furthest of {_games(played)} games"
    )
    bound.loglog(times + 1, np.median([row["median"] for row in played], axis=0), label="median")
    bound.set(xlabel="T + 1", ylabel="tau² · KL(equilibrium, policy), nats")
    bound.legend(frameon=False)
    names = [name for name in shares if name != "equilibrium"]
    values = np.array([[win(shares, row, column).value for column in names] for row in names])
    matrix.imshow(values, cmap="RdBu", vmin=0, vmax=1)
    matrix.set_xticks(range(len(names)), names, rotation=60)
    matrix.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(values):
        matrix.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7)
    matrix.set_title("P(row preferred to column)")
    return figure


TABLE = Table(
    name="nash_md",
    title="Nash-MD: tabular convergence under the bound, and the pairwise matrix of policies",
    paper="Nash learning from human feedback (2312.00886): theorem 1, and the table judged by PaLM 2",
    settings=SCALES,
    minutes={"smoke": 0.6, "small": 50},
    seeds={"smoke": (0,), "small": (0, 1, 2)},
    jobs=jobs,
    make=make,
    report=report,
    draw=draw,
)
