"""AlpacaFarm: the ranking of methods under simulated annotators, and over-optimisation with and without label noise.

Small scale: alignment/reproduce/farm.py. Win rates are against another sample of the start, by the pool of annotators
without noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from alignment.reproduce import farm
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import NOT_MEASURED, difference, estimate, mean_of, over
from alignment.reproduce.farm import CLEAN, NOISY
from alignment.reproduce.lab import Answers, Lab, Sampled
from alignment.reproduce.plots import bars, canvas
from alignment.reproduce.report import Cell, Report, Section
from alignment.reproduce.rows import Row
from alignment.reproduce.sweep import everyday, matching, prompts_of
from alignment.reproduce.table import Job, Settings, Table

SFT, BEST_OF, EXPERT, PPO, DPO = "SFT", "best-of-n", "expert iteration", "PPO", "DPO"
FEEDME, CONDITIONED = "binary FeedME", "binary reward conditioning"
# Win rate against text-davinci-003, %: simulated, human; None was not reported
PUBLISHED: dict[str, tuple[float, float | None]] = {
    PPO: (46.8, 55.1),
    DPO: (46.8, None),
    BEST_OF: (45.0, 50.7),
    EXPERT: (41.9, 45.7),
    SFT: (36.7, 44.3),
    FEEDME: (36.6, 37.9),
    CONDITIONED: (32.4, None),
}
SAME = 0.03  # of a win rate: “no better”
SCALES = {
    "smoke": {
        **farm.SETTINGS["smoke"],
        "prompts": 24,
        "best_of": [1, 2, 4],
        "methods": [SFT, BEST_OF, PPO, DPO, FEEDME, CONDITIONED],
        "labels": [NOISY],
    },
    "small": {
        **farm.SETTINGS["small"],
        "prompts": 111,
        "best_of": [1, 2, 4, 8, 16, 32],
        "methods": list(PUBLISHED),
        "labels": [NOISY, CLEAN],
    },
}


def jobs(settings: Settings, seeds: Sequence[int]) -> list[Job]:
    """All methods with noise; without it those that climb on a reward model."""
    found: list[Job] = []
    for seed in seeds:
        found += [{"labels": NOISY, "method": method, "seed": seed} for method in settings["methods"]]
        if CLEAN in settings["labels"]:
            found += [{"labels": CLEAN, "method": method, "seed": seed} for method in (BEST_OF, PPO)]
    return found


def make(lab: Lab, settings: Settings, job: Job) -> Mapping[str, Any]:
    """Train one method, and compare its answers with other ones of the start."""
    seed, labels, method = job["seed"], job["labels"], job["method"]
    prompts = prompts_of(everyday("test", settings["prompts"]))
    sampled = Sampled(settings["tokens"], seed=seed)
    rival = [row[0] for row in lab.answers("tiny", prompts, Sampled(settings["tokens"], seed=5000 + seed)).texts]
    scorer = farm.reward_model(lab, settings, labels, seed)

    def point(answers: Answers, places: Sequence[int], step: int) -> dict[str, Any]:
        texts = [row[at] for row, at in zip(answers.texts, places, strict=True)]
        scores = [row[0] for row in farm.scores_of(scorer, prompts, [[text] for text in texts])]
        tokens = [row[at] for row, at in zip(answers.tokens, places, strict=True)]
        kl = [row[at] for row, at in zip(answers.log_ratio, places, strict=True)]
        numbers: dict[str, Sequence[float]] = {"score": scores, "kl": kl, "tokens": tokens}
        rounded = {key: [round(value, 4) for value in values] for key, values in numbers.items()}
        return {"step": step, "win": farm.wins(prompts, texts, rival), **rounded}

    first = [0] * len(prompts)
    if method == SFT:
        return {"points": [point(lab.answers("tiny", prompts, sampled), first, 0)]}
    if method == BEST_OF:
        many = lab.answers("tiny", prompts, Sampled(settings["tokens"], settings["best_of"][-1], seed=seed))
        scores = farm.scores_of(scorer, prompts, many.texts)
        return {"points": [point(many, farm.best_places(scores, n), n) for n in settings["best_of"]]}
    if method in (PPO, EXPERT):
        run = climbing(lab, settings, method, labels, seed)
        kept = settings["at"]
        return {"points": [point(lab.answers(run / f"at-{at}", prompts, sampled), first, at) for at in kept]}
    run = farm.offline(lab, settings, method, labels, seed)
    asked = farm.conditioned(prompts) if method == CONDITIONED else prompts
    return {"points": [point(lab.answers(run, asked, sampled), first, settings["offline_steps"])]}


def climbing(lab: Lab, settings: Settings, method: str, labels: str, seed: int) -> Path:
    """A policy that is trained on the reward model."""
    if method == PPO:
        return farm.ppo(lab, settings, labels, seed)
    return farm.online(lab, settings, "expert_iteration", labels, seed, "rollout.completions=4", "rollout.epochs=1")


# -- the table ---------------------------------------------------------------------------------------------------------


def report(settings: Settings, rows: list[Row]) -> Report:
    """Claims; the ranking, and the climbs on the reward model."""
    return Report(
        findings=[*of_the_ranking(settings, rows), *of_the_climb(settings, rows)],
        sections=[ranking_section(settings, rows), climb_section(rows)],
        notes=[
            "Small stand-ins: `tiny` for LLaMA-7B after SFT, everyday prompts for Alpaca's, four rules of different "
            "tastes for the pool of 13 prompted models, another sample of the start for text-davinci-003.",
            "The checkpoint (or n) is the best on every second prompt; the ranking's win rates are on the others.",
            "Over-optimisation is the win rate at that best point less the one at the end of the climb.",
            "Labels with noise are the paper's: a pool, and a fair coin in place of half of the labels. Without it one "
            "annotator labels by its own taste, without error. Quark is not here.",
        ],
    )


def win_of(rows: Sequence[Row], method: str, labels: str = NOISY, last: bool = False) -> np.ndarray:
    """(S, P/2): win rates on every second prompt, of the point that is best on the others, or of the last one."""
    found = []
    for row in matching(rows, {"method": method, "labels": labels}):
        points = row["points"]
        chosen = points[-1] if last else max(points, key=lambda point: float(np.mean(point["win"][0::2])))
        found.append(chosen["win"][1::2])
    return np.array(found, dtype=float)


def of_the_ranking(settings: Settings, rows: list[Row]) -> list[Finding]:
    methods = [name for name in PUBLISHED if name in settings["methods"]]
    table = np.array([win_of(rows, name) for name in methods])  # (methods, S, P)
    published = [PUBLISHED[name][0] for name in methods]

    def order(weights: np.ndarray) -> np.ndarray:
        means = table @ weights / weights.sum()
        return np.array([stats.spearmanr(published, column).statistic for column in means.T])

    claim = Claim("methods rank as published", "simulated and human: 0.98", "Spearman's correlation", above=0.0)
    found = [Finding(claim, estimate(order, table.shape[2]), over(table[0]))]
    sft = win_of(rows, SFT)
    for name in methods:
        if name == SFT:
            continue
        text = f"{name} beats SFT"
        ends = {"above": 0.0}
        if name == FEEDME:
            text, ends = f"{name} is no better than SFT (within {SAME})", {"below": SAME}
        if name == CONDITIONED:
            text, ends = f"{name} is below SFT", {"below": 0.0}
        values = f"{PUBLISHED[name][0]} and {PUBLISHED[SFT][0]} %"
        claim = Claim(text, values, "difference of win rates", digits=3, **ends)
        found.append(Finding(claim, difference(win_of(rows, name), sft), over(sft)))
    return found


def fall(rows: Sequence[Row], method: str, labels: str) -> np.ndarray:
    """(S, P/2): the win rate at its best point less the one at the end."""
    return win_of(rows, method, labels) - win_of(rows, method, labels, last=True)


def of_the_climb(settings: Settings, rows: list[Row]) -> list[Finding]:
    figure = "win rate at its best point less the last"
    found = []
    for method in (PPO, BEST_OF):
        noisy, clean = fall(rows, method, NOISY), fall(rows, method, CLEAN)
        claim = Claim(
            f"{method} over-optimises with label noise", "the win rate falls again", figure, above=0.0, digits=3
        )
        found.append(Finding(claim, mean_of(noisy), over(noisy)))
        text = f"{method} does not with one annotator (within {SAME})"
        claim = Claim(text, "it does not fall", figure, below=SAME, digits=3)
        found.append(Finding(claim, mean_of(clean) if clean.size else NOT_MEASURED, over(clean) if clean.size else ""))
        claim = Claim(
            f"{method} falls further with noise", "only with noise", "difference of the two", above=0.0, digits=3
        )
        found.append(Finding(claim, difference(noisy, clean), over(noisy)))
    return found


def ranking_section(settings: Settings, rows: list[Row]) -> Section:
    heads = ["method", "published: simulated, %", "human, %", "ours: win rate, %", "best at"]
    lines: list[list[Cell]] = []
    for name, published in PUBLISHED.items():
        if name in settings["methods"]:
            found = matching(rows, {"method": name, "labels": NOISY})
            best = [max(row["points"], key=lambda p: float(np.mean(p["win"][0::2])))["step"] for row in found]
            lines.append([name, *published, mean_of(100 * win_of(rows, name)), ", ".join(map(str, best))])
    note = (
        "Published against text-davinci-003, ours against another sample of the start. Best at: step or n of each seed."
    )
    return Section("Ranking, labels of a pool with noise", heads, lines, digits=1, note=note)


def climb_section(rows: list[Row]) -> Section:
    heads = ["labels", "method", "step or n", "win rate, %", "reward model's score", "KL, nats", "tokens"]
    lines: list[list[Cell]] = []
    for labels, method in dict.fromkeys((row["job"]["labels"], row["job"]["method"]) for row in rows):
        found = matching(rows, {"labels": labels, "method": method})
        for at, each in enumerate(found[0]["points"]):
            table = {
                key: np.array([row["points"][at][key] for row in found]) for key in ("win", "score", "kl", "tokens")
            }
            cells: list[Cell] = [
                mean_of(100 * table["win"]),
                *(mean_of(table[key]) for key in ("score", "kl", "tokens")),
            ]
            if method == BEST_OF:
                cells[2] = None  # the log-ratio of a picked answer is not the KL
            lines.append([labels, method, each["step"], *cells])
    return Section("All points", heads, lines)


def draw(settings: Settings, rows: list[Row]) -> Any:
    """Win rates over the climb, with and without noise."""
    figure, axes = canvas(9.5, 3.8, columns=2, sharey=True)
    for plot, method, label in zip(axes[0], (PPO, BEST_OF), ("step", "n"), strict=True):
        for number, labels in enumerate(settings["labels"]):
            found = matching(rows, {"method": method, "labels": labels})
            steps = [point["step"] for point in found[0]["points"]]
            shares = [mean_of([row["points"][at]["win"] for row in found]) for at in range(len(steps))]
            middle = [each.value for each in shares]
            plot.errorbar(steps, middle, bars(shares), fmt="-o", ms=4, capsize=2, color=f"C{number}", label=labels)
        plot.axhline(0.5, color="0.6", lw=0.8)
        plot.set(title=method, xlabel=label)
        plot.grid(alpha=0.3)
    axes[0, 1].set_xscale("log", base=2)
    axes[0, 0].set_ylabel("win rate against the start")
    axes[0, 0].legend(frameon=False)
    return figure


TABLE = Table(
    name="alpaca_farm",
    title="AlpacaFarm: seven methods under simulated annotators; over-optimisation with and without label noise",
    paper="AlpacaFarm (2305.14387): the table of win rates, and over-optimisation by kind of label",
    settings=SCALES,
    minutes={"smoke": 0.9, "small": 35},
    seeds={"smoke": (0,), "small": (0, 1, 2)},
    jobs=jobs,
    make=make,
    report=report,
    draw=draw,
)
