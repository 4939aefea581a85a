"""How far each online method gets at what KL: reward against KL to the reference, on `tiny` and a stated rule.

    python scripts/frontier.py --out frontier.jsonl --plot frontier.png    # all methods, five coefficients, two seeds
    python scripts/frontier.py --out offset.jsonl --methods p3o-v2,ppo --kl 0.05 --offset 10

Every run takes the same prompts, the same number of optimizer steps and samples a step, and the same learning rate. A
run that is in the file already is not made again, so the command may be stopped and started. `--table` alone shows what
the file holds; `align frontier frontier.jsonl` says more of it (docs/frontier.md).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.reproduce.offset import Offset  # noqa: E402

# name -> (recipe, overrides). The KL's coefficient is loss.kl_coef, of online DPO loss.beta.
METHODS: dict[str, tuple[str, list[str]]] = {
    "p3o-v1": ("p3o", ["loss.clipping=separate"]),
    "p3o-v2": ("p3o", ["loss.clipping=joint"]),
    "ppo": ("ppo", []),
    "rloo": ("rloo", ["rollout.completions=2"]),
    "online_dpo": ("online_dpo", ["rollout.completions=2"]),
}


JOB = ("method", "kl_coef", "seed", "offset", "steps", "model", "rate")  # what makes a run this run


def run(method: str, kl: float, seed: int, offset: float, steps: int, model: str, rate: float) -> dict[str, Any]:
    """One training run and its row: reward and KL of answers to held-out prompts, before and after."""
    from alignment.evaluation.end_of_run import EndOfRun
    from alignment.launch.compose import Composer
    from alignment.launch.quiet import quiet_libraries
    from alignment.launch.training_run import METHODS as TRAINERS

    quiet_libraries()
    recipe, overrides = METHODS[method]
    coefficient = "loss.beta" if method == "online_dpo" else "loss.kl_coef"
    config = Composer.create().config(
        [
            f"recipe={recipe}",
            f"model={model}",
            *overrides,
            f"{coefficient}={kl}",
            f"seed={seed}",
            "rollout.prompts=16",
            "rollout.epochs=2",
            "rollout.max_new_tokens=32",
            f"training.max_steps={steps}",
            f"training.learning_rate={rate}",
            "training.batch_size=8",
            "training.bf16=false",
            "evaluation.prompts=111",
            "evaluation.max_new_tokens=32",
            "evaluation.temperature=1.0",
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = TRAINERS[recipe if recipe != "rloo" else "policy_gradient"](
            config=config, folder=folder, feedback=Offset(offset)
        )
        end = EndOfRun(trainer, trainer.data.prompts)
        before = end.ask()
        trainer.train()
        found = end.table(before, end.ask())
    row = {
        "method": method,
        "kl_coef": kl,
        "seed": seed,
        "offset": offset,
        "steps": steps,
        "model": model,
        "rate": rate,
    }
    return row | {"score": found["score"], "kl": found["kl"], "length": found["length"], "fluency": found["fluency"]}


def table(file: Path) -> str:
    """Mean over seeds of reward and KL of every method and setting, as Markdown."""
    from alignment.evaluation.frontier import frontiers
    from alignment.evaluation.frontier_runs import read_sweep
    from alignment.evaluation.text import decimal

    moved = frontiers(read_sweep([file], by="method"), band="none")
    said = frontiers(read_sweep([file], x="length", y="fluency", by="method"), band="none")
    lines = ["| method | setting | seeds | reward | KL, nats | tokens | fluency |", "|---|---|--:|--:|--:|--:|--:|"]
    for group, other in zip(moved.groups, said.groups, strict=True):
        for point, besides in zip(group.settings, other.settings, strict=True):
            cells = [decimal(value) for value in (point.y, point.x, besides.x, besides.y)]
            lines.append(f"| {' | '.join([group.name, point.label, str(len(point.runs)), *cells])} |")
    return "\n".join([*lines, f"\nBefore training: {decimal(moved.start)}."])


def plot(source: Path, file: Path, furthest: float) -> None:
    """The picture that `align frontier` draws: methods with several seeds of every setting have a band."""
    from alignment.evaluation.files import write_atomically
    from alignment.evaluation.frontier import frontiers
    from alignment.evaluation.frontier_plot import draw
    from alignment.evaluation.frontier_runs import read_sweep

    write_atomically(file, draw(frontiers(read_sweep([source], by="method")), furthest))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a run; added to")
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--furthest", type=float, default=30.0, help="nats up to which the plot goes")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--kl", default="0.02,0.05,0.1,0.2,0.4", help="coefficients of the KL")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--offset", type=float, default=0.0, help="scale of a number added to all rewards of a prompt")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--table", action="store_true", help="make no runs, show what is there")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.is_file() else []
    methods = arguments.methods.split(",")
    if not set(methods) <= set(METHODS):
        parser.error(f"--methods: known are {', '.join(METHODS)}")
    wanted = [
        (method, float(kl), int(seed), arguments.offset, arguments.steps, arguments.model, arguments.learning_rate)
        for seed in arguments.seeds.split(",")
        for kl in arguments.kl.split(",")
        for method in methods
    ]
    known = {tuple(row[name] for name in JOB) for row in rows}
    for job in wanted if not arguments.table else []:
        if job not in known:
            row = run(*job)
            rows.append(row)
            with open(arguments.out, "a") as file:
                file.write(json.dumps(row) + "\n")
            score = row["score"]
            print(
                f"{job[:4]}: reward {score['before']:.2f} -> {score['after']:.2f}, KL {row['kl']['mean']:.2f}",
                flush=True,
            )
    if not rows:
        parser.error(f"--table: there are no runs in {arguments.out}")
    print(table(arguments.out))
    if arguments.plot:
        plot(arguments.out, arguments.plot, arguments.furthest)


if __name__ == "__main__":
    main()
