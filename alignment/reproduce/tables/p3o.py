"""P3O against PPO and DPO: reward over KL, best checkpoints, and what a prompt-only offset of the rewards does.

Small scale: `tiny`, the everyday prompts, the plain-words rule as the reward. All methods take the same prompts, steps,
answers a prompt and learning rate; DPO is the online one, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.feedback.rules import PlainWords
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import NOT_MEASURED, difference, exact, gain_at_equal_kl, mean_of, over
from alignment.reproduce.lab import Lab, Sampled
from alignment.reproduce.offset import Offset
from alignment.reproduce.plots import reward_over_kl
from alignment.reproduce.report import Cell, Report, Section
from alignment.reproduce.rows import Row
from alignment.reproduce.sweep import best_point, curve_of, everyday, matching, point, points_of, prompts_of, table_of
from alignment.reproduce.table import Job, Settings, Table

# method -> recipe, its overrides, and what weighs its KL
METHODS: dict[str, tuple[str, list[str], str]] = {
    "P3O, joint (V2)": ("p3o", ["loss.clipping=joint"], "loss.kl_coef"),
    "P3O, separate (V1)": ("p3o", ["loss.clipping=separate"], "loss.kl_coef"),
    "PPO": ("ppo", [], "loss.kl_coef"),
    "online DPO": ("online_dpo", ["rollout.completions=2"], "loss.beta"),
}
V2, V1, PPO, DPO = METHODS
START = "start"
# HH, 6B: reward, KL a sample, tokens
PUBLISHED = {
    V2: (-0.302, 9.83, 80.46),
    DPO: (-0.298, 12.01, 88.84),
    PPO: (-0.613, 7.02, 109.03),
    START: (-1.195, 0.0, 112.70),
}
TOLERANCE = 0.2  # of "at or above", of rewards from 0 to 10
SCALES = {
    "smoke": {
        "coefficients": {V2: [0.05], PPO: [0.5], DPO: [0.1]},
        "offset": {V2: 0.05},
        "steps": 4,
        "at": [2, 4],
        "prompts": 24,
        "answers": 1,
        "tokens": 16,
        "phase": 8,
    },
    "small": {
        "coefficients": {V2: [0.05, 0.1, 0.2, 0.4], V1: [0.05, 0.1, 0.2], PPO: [0.2, 0.5, 1.0], DPO: [0.1, 0.2, 0.5]},
        "offset": {V2: 0.1, PPO: 0.5},
        "steps": 80,
        "at": [40, 80],
        "prompts": 111,
        "answers": 1,
        "tokens": 32,
        "phase": 16,
    },
}


def jobs(settings: Settings, seeds: Sequence[int]) -> list[Job]:
    """The start, every method and coefficient, and those with an offset, seed by seed."""
    found: list[Job] = []
    for seed in seeds:
        found.append({"method": START, "coefficient": 0.0, "offset": 0, "seed": seed})
        for method, values in settings["coefficients"].items():
            found += [{"method": method, "coefficient": value, "offset": 0, "seed": seed} for value in values]
        for method, value in settings["offset"].items():
            found += [{"method": method, "coefficient": value, "offset": add, "seed": seed} for add in ("none", 10)]
    return found


def make(lab: Lab, settings: Settings, job: Job) -> Mapping[str, Any]:
    """Train one policy, and measure it at some of its steps."""
    prompts = prompts_of(everyday("test", settings["prompts"]))
    sampled = Sampled(settings["tokens"], settings["answers"], seed=job["seed"])
    if job["method"] == START:
        return {"points": [point(lab.answers("tiny", prompts, sampled), prompts, PlainWords())]}
    recipe, overrides, coefficient = METHODS[job["method"]]
    # With and without an offset in 64ths, so that both are exact; all other runs take the rule as it is.
    offset = None if job["offset"] == 0 else Offset(0.0 if job["offset"] == "none" else float(job["offset"]))
    own = [*overrides, f"{coefficient}={job['coefficient']}", *common(settings)]
    run = lab.run(recipe, job["seed"], *own, feedback=offset, at=settings["at"])
    return {"points": points_of(lab, run, settings["at"], prompts, PlainWords(), sampled)}


def common(settings: Settings) -> list[str]:
    """What all online runs have in common."""
    return [
        "training.learning_rate=1e-3",
        "training.batch_size=8",
        f"training.max_steps={settings['steps']}",
        f"rollout.prompts={settings['phase']}",
        "rollout.epochs=2",
        "rollout.batch_size=128",
        f"rollout.max_new_tokens={settings['tokens']}",
        "evaluation.prompts=0",
    ]


def report(settings: Settings, rows: list[Row]) -> Report:
    """Claims of the paper, its table of best checkpoints, every point, and the runs with an offset."""
    plain = [row for row in rows if row["job"]["offset"] == 0]
    return Report(
        findings=[*at_equal_kl(plain), *of_the_best(plain), *of_the_offset(settings, rows)],
        sections=[best_section(plain), points_section(plain), offset_section(settings, rows)],
        notes=[
            "Start, data, reward and judge are small stand-ins: `tiny` (2.4 million weights), 282 everyday prompts, a "
            "rule that scores plain and concise words from 0 to 10, in place of Pythia, HH and a GPT-J reward model.",
            "The rewards of the two columns are of different models: compare orders, not levels.",
            f"“At or above” allows {TOLERANCE} below. A best checkpoint is chosen on every second prompt, and measured "
            "on the others.",
            "GPT-4's win rates (P3O 57.0 % against PPO, 54.6 % against DPO) need a judge and are made at paper scale.",
        ],
    )


GAIN = "mean difference of the rewards at equal KL"
AT_EQUAL_KL = [
    (V2, PPO, Claim("P3O (V2) at or above PPO at equal KL", "HH: +0.1 to +0.3", GAIN, above=-TOLERANCE)),
    (V2, DPO, Claim("P3O (V2) at or above online DPO at equal KL", "HH: +0.1 to +0.3", GAIN, above=-TOLERANCE)),
    (V1, PPO, Claim("P3O (V1) at or above PPO at equal KL", "HH: +0.1 to +0.3", GAIN, above=-TOLERANCE)),
    (V2, V1, Claim("V2 has the better trade-off of reward and KL than V1", "in words", GAIN, above=0.0)),
]
BETTER = Claim(
    "P3O's best checkpoint has a higher reward than PPO's", "-0.302 and -0.613", "difference of rewards", above=0.0
)
NEARER = Claim("online DPO's best checkpoint has a higher KL than P3O's", "12.01 and 9.83", "nats", above=0.0)
SHORTER = Claim("P3O shortens answers", "112.70 → 80.46 tokens", "change of tokens", below=0.0, digits=1)
LARGEST = "largest change of an answer's log-ratio, nats"
INVARIANT = Claim(
    "P3O is invariant to a reward of the prompt alone", "theorem 2", LARGEST, above=-1e-9, below=1e-9, digits=3
)
NOT_INVARIANT = Claim("PPO is not", "theorem 2", LARGEST, above=1e-9, digits=3)


def at_equal_kl(rows: list[Row]) -> list[Finding]:
    """One line above another one, over the KL that both reach."""
    start = table_of(rows, "reward", {"method": START})
    found = []
    for first, second, claim in AT_EQUAL_KL:
        one, other = (curve_of(rows, {"method": name}, ["coefficient"]) for name in (first, second))
        ours = gain_at_equal_kl(one, other, start) if one and other else NOT_MEASURED
        found.append(Finding(claim, ours, over(start)))
    return found


def of_the_best(rows: list[Row]) -> list[Finding]:
    best = {name: best_point(rows, {"method": name}) for name in METHODS}
    before = table_of(rows, "tokens", {"method": START})[:, 1::2]
    return [
        Finding(BETTER, difference(best[V2]["reward"], best[PPO]["reward"]), over(before)),
        Finding(NEARER, difference(best[DPO]["kl"], best[V2]["kl"]), over(before)),
        Finding(SHORTER, difference(best[V2]["tokens"], before), over(before)),
    ]


def of_the_offset(settings: Settings, rows: list[Row]) -> list[Finding]:
    """Whether the same policy comes out when a number is added to all rewards of a prompt."""
    found = []
    for method, claim in ((V2, INVARIANT), (PPO, NOT_INVARIANT)):
        pair = offset_pair(settings, rows, method, "kl")
        ours = exact(float(np.abs(pair[0] - pair[1]).max())) if pair else NOT_MEASURED
        found.append(Finding(claim, ours))
    return found


def offset_pair(settings: Settings, rows: list[Row], method: str, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(S, P) without and with the offset."""
    if method not in settings["offset"]:
        return None
    job = {"method": method, "coefficient": settings["offset"][method]}
    return table_of(rows, key, {**job, "offset": "none"}), table_of(rows, key, {**job, "offset": 10})


def best_section(rows: list[Row]) -> Section:
    heads = ["best checkpoint", "published reward", "KL", "tokens", "ours: reward", "KL, nats", "tokens"]
    lines: list[list[Cell]] = []
    for name in [*METHODS, START]:
        best = best_point(rows, {"method": name})
        if len(best["reward"]):
            published: Sequence[float | None] = PUBLISHED.get(name, (None, None, None))
            lines.append([name, *published, *(mean_of(best[key]) for key in ("reward", "kl", "tokens"))])
    return Section("Best checkpoints (published: HH, 6B)", heads, lines)


def points_section(rows: list[Row]) -> Section:
    heads = ["method", "coefficient", "step", "seeds", "reward", "KL, nats", "tokens"]
    lines: list[list[Cell]] = []
    for name, coefficient in dict.fromkeys((row["job"]["method"], row["job"]["coefficient"]) for row in rows):
        found = matching(rows, {"method": name, "coefficient": coefficient})
        for at, each in enumerate(found[0]["points"]):
            values = [mean_of([row["points"][at][key] for row in found]) for key in ("reward", "kl", "tokens")]
            lines.append([name, f"{coefficient:g}", each["step"], len(found), *values])
    return Section("All points", heads, lines)


def offset_section(settings: Settings, rows: list[Row]) -> Section:
    heads = ["method", "coefficient", "offset", "reward", "KL, nats"]
    lines: list[list[Cell]] = []
    for method, coefficient in settings["offset"].items():
        sides = [offset_pair(settings, rows, method, key) for key in ("reward", "kl")]
        for at, added in enumerate(("none", "0 to 10")):
            lines.append([method, f"{coefficient:g}", added, *(mean_of(side[at]) for side in sides if side)])
    return Section("A number added to all rewards of a prompt", heads, lines)


def draw(settings: Settings, rows: list[Row]) -> Any:
    plain = [row for row in rows if row["job"]["offset"] == 0]
    label = "plain-words reward of held-out answers"
    return reward_over_kl(plain, settings["coefficients"], "coefficient", {"method": START}, label)


TABLE = Table(
    name="p3o",
    title="P3O against PPO and DPO: reward over KL, best checkpoints, invariance to a prompt-only offset",
    paper="Pairwise proximal policy optimisation (2310.00212): frontiers, the table of best checkpoints, theorem 2",
    settings=SCALES,
    minutes={"smoke": 0.6, "small": 50},
    seeds={"smoke": (0,), "small": (0, 1, 2)},
    jobs=jobs,
    make=make,
    report=report,
    draw=draw,
)
