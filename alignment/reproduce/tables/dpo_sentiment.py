"""DPO's controlled sentiment: reward over KL of DPO, PPO, P3O, unlikelihood and preferred fine-tuning.

Small scale: `tiny` answers everyday prompts, and VADER's sentiment of an answer, from -1 to 1, is the ground truth in
place of the paper's classifier. As there, four completions of the start make six pairs a prompt, labelled by it; PPO
(and P3O) see the ground truth itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from alignment.data.example import Example
from alignment.data.views import Demonstration, Judged
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import NOT_MEASURED, gain_at_equal_kl, mean_of, over, reward_at
from alignment.reproduce.lab import Lab, Sampled
from alignment.reproduce.plots import reward_over_kl
from alignment.reproduce.report import Cell, Report, Section
from alignment.reproduce.rows import Row
from alignment.reproduce.sweep import curve_of, everyday, matching, pair, point, points_of, prompts_of, table_of
from alignment.reproduce.table import Job, Settings, Table

START, DPO, PPO, P3O, UNLIKELY, PREFERRED = "start", "DPO", "PPO", "P3O", "unlikelihood", "preferred fine-tuning"
# method -> recipe, overrides, and what is swept
METHODS: dict[str, tuple[str, list[str], str]] = {
    DPO: ("dpo", [], "loss.beta"),
    PPO: ("ppo", [], "loss.kl_coef"),
    P3O: ("p3o", [], "loss.kl_coef"),
    UNLIKELY: ("cut", ["loss=unlikelihood", "data.max_prompt_length=256"], "loss.weight"),
    PREFERRED: ("sft", [], ""),
}
ONLINE = (PPO, P3O)
SAMPLES = 4  # of a prompt; every two are a pair
AT = (1.0, 2.0, 4.0, 8.0)  # nats
READ_OFF = {DPO: "about 0.9 at KL 1 to 2, 0.95 to 1.0 at 3 to 5", PPO: "about 0.85 to 0.9 at KL 10 to 12"}
TOLERANCE = 0.05  # of “at or above”; the reward goes from -1 to 1
SCALES = {
    "smoke": {
        "sweep": {DPO: [0.1], PPO: [0.05], P3O: [0.02], UNLIKELY: [0.5], PREFERRED: [0.0]},
        "train": 32,
        "prompts": 24,
        "tokens": 16,
        "steps": [2, 4],
        "phase": 8,
    },
    "small": {
        "sweep": {
            DPO: [0.05, 0.1, 1.0, 5.0],
            PPO: [0.02, 0.05, 0.1, 0.3],
            P3O: [0.005, 0.01, 0.02, 0.05],
            UNLIKELY: [0.05, 0.1, 0.5, 1.0],
            PREFERRED: [0.0],
        },
        "train": 282,
        "prompts": 111,
        "tokens": 32,
        "steps": [15, 30, 60],
        "phase": 16,
    },
}


def jobs(settings: Settings, seeds: Sequence[int]) -> list[Job]:
    """The start and every point of the sweep, seed by seed."""
    found: list[Job] = []
    for seed in seeds:
        found.append({"method": START, "value": 0.0, "seed": seed})
        found += [{"method": m, "value": v, "seed": seed} for m, values in settings["sweep"].items() for v in values]
    return found


def make(lab: Lab, settings: Settings, job: Job) -> Mapping[str, Any]:
    """Train one policy, and measure it after some of the steps."""
    from alignment.feedback.lexicons import Sentiment

    reward, prompts = Sentiment(), prompts_of(everyday("test", settings["prompts"]))
    sampled = Sampled(settings["tokens"], seed=job["seed"])
    if job["method"] == START:
        return {"points": [point(lab.answers("tiny", prompts, sampled), prompts, reward)]}
    recipe, overrides, swept = METHODS[job["method"]]
    steps = settings["steps"]
    own = [*overrides, f"training.max_steps={steps[-1]}", "training.batch_size=8", "training.learning_rate=1e-3"]
    own += [f"{swept}={job['value']}"] if swept else []
    own += ["training.scheduler=constant", "evaluation.prompts=0", "evaluation.score=null"]
    records: Any = None
    if job["method"] in ONLINE:
        own += [f"rollout.prompts={settings['phase']}", "rollout.epochs=2", "rollout.batch_size=128"]
        own += [f"rollout.max_new_tokens={settings['tokens']}", "feedback=sentiment"]
    else:
        records = records_of(job["method"], labelled_pairs(lab, settings, job["seed"], reward))
    held_out = records[:8] if records else None
    run = lab.run(recipe, job["seed"], *own, train=records, held_out=held_out, at=steps)
    return {"points": points_of(lab, run, steps, prompts, reward, sampled)}


def labelled_pairs(lab: Lab, settings: Settings, seed: int, reward: Any) -> list[Example]:
    """Every two of the start's completions of a prompt, the one of higher reward first; equal ones are no pair."""
    from alignment.reproduce.asking import scored

    prompts = prompts_of(everyday("train", settings["train"]))
    own = lab.answers("tiny", prompts, Sampled(settings["tokens"], SAMPLES, seed=1000 + seed))
    found = []
    for prompt, texts, row in zip(prompts, own.texts, scored(reward, prompts, own.texts), strict=True):
        for one, other in combinations(range(SAMPLES), 2):
            better, worse = (one, other) if row[one] > row[other] else (other, one)
            if row[better] > row[worse] and texts[better] and texts[worse]:
                found.append(pair(prompt, texts[better], texts[worse]))
    return found


def records_of(method: str, pairs: Sequence[Example]) -> list[Any]:
    """What a method reads of the pairs."""
    if method == DPO:
        return list(pairs)
    if method == PREFERRED:
        return [Demonstration(f"{n}", each.prompt, each.responses[0].messages) for n, each in enumerate(pairs)]
    return [
        Judged(f"{n}-{kind}", each.prompt, answer.messages, None if good else "It is the worse of two.", good)
        for n, each in enumerate(pairs)
        for kind, answer, good in (("chosen", each.responses[0], True), ("rejected", each.responses[1], False))
    ]


GAIN = "mean difference of the rewards at equal KL"
CLAIMS = [
    (DPO, PPO, Claim("DPO's frontier lies above PPO's", "figure 2", GAIN, above=0.0, digits=3)),
    (DPO, UNLIKELY, Claim("DPO's frontier lies above unlikelihood's", "figure 2", GAIN, above=0.0, digits=3)),
    (DPO, PREFERRED, Claim("DPO's frontier lies above preferred fine-tuning's", "figure 2", GAIN, above=0.0, digits=3)),
    (
        P3O,
        PPO,
        Claim("P3O at or above PPO at equal KL", "P3O's paper, HH: +0.1 to +0.3", GAIN, above=-TOLERANCE, digits=3),
    ),
]


def report(settings: Settings, rows: list[Row]) -> Report:
    """Claims about the lines, their heights at some KL, and every point."""
    start = table_of(rows, "reward", {"method": START})
    curves = {name: curve_of(rows, {"method": name}, ["value"]) for name in METHODS}
    found = []
    for first, second, claim in CLAIMS:
        one, other = curves[first], curves[second]
        ours = gain_at_equal_kl(one, other, start) if one and other else NOT_MEASURED
        found.append(Finding(claim, ours, over(start)))
    heights: list[list[Cell]] = [
        [name, READ_OFF.get(name, ""), *(reward_at(curve, start, kl) if curve else None for kl in AT)]
        for name, curve in curves.items()
    ]
    heads = ["method", "published, read off the figure", *(f"ours at KL {kl:g}" for kl in AT)]
    at_kl = Section("Reward at a KL", heads, heights, note="A dash: no policy of the method went so far.")
    return Report(
        findings=found,
        sections=[at_kl, points_section(rows)],
        notes=[
            "Small stand-ins: `tiny` on everyday prompts for GPT-2-large on IMDb, VADER for the classifier. The "
            "paper's reward is a probability, ours goes from -1 to 1.",
            "The paper's values are read off a figure. P3O is not in it; its claim is of its own paper.",
            "Swept are DPO's beta, unlikelihood's weight, and PPO's and P3O's coefficients of the KL. The paper sweeps "
            "PPO's target KL, which moves the coefficient over ten thousand samples; a run here has a thousand.",
            f"“At or above” allows {TOLERANCE} below.",
        ],
    )


def points_section(rows: list[Row]) -> Section:
    heads = ["method", "swept", "value", "step", "seeds", "reward", "KL, nats", "tokens"]
    lines: list[list[Cell]] = []
    for name, value in dict.fromkeys((row["job"]["method"], row["job"]["value"]) for row in rows):
        found = matching(rows, {"method": name, "value": value})
        swept = METHODS[name][2] if name in METHODS else ""
        for at, each in enumerate(found[0]["points"]):
            values = [mean_of([row["points"][at][key] for row in found]) for key in ("reward", "kl", "tokens")]
            lines.append([name, swept, f"{value:g}" if swept else "", each["step"], len(found), *values])
    return Section("All points", heads, lines)


def draw(settings: Settings, rows: list[Row]) -> Any:
    return reward_over_kl(rows, METHODS, "value", {"method": START}, "sentiment of held-out answers")


TABLE = Table(
    name="dpo_sentiment",
    title="DPO controlled sentiment: reward over KL of DPO, PPO, P3O, unlikelihood and preferred fine-tuning",
    paper="Direct preference optimization (2305.18290), figure 2 left: IMDb sentiment",
    settings=SCALES,
    minutes={"smoke": 0.6, "small": 35},
    seeds={"smoke": (0,), "small": (0, 1, 2)},
    jobs=jobs,
    make=make,
    report=report,
    draw=draw,
)
