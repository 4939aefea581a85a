"""A judge that goes in a circle, and who comes to terms with it: Nash-MD, self-play, best response, a reward model.

    python scripts/circle.py --out circle.jsonl --plot circle.png    # eleven policies, two seeds

The judge sees the style of an answer alone, which is how it begins: with an article ("The", "A"), with a person ("You",
"I"), or otherwise. Article beats other, other beats person, person beats article, but not equally often, so that scores
fitted to its verdicts have a winner. The reward model is trained on its
verdicts over the reference's own answers (`recipe=reward`) and its policy by RLOO; the others ask the judge itself.
Shares of the styles are of fresh answers to held-out prompts, and with them the judge's verdict on any two policies is
exact. The equilibrium is computed for each prompt, from the shares of the reference (`alignment/tabular`). A policy in
the file already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.evaluation.figure import new_figure, png  # noqa: E402
from alignment.evaluation.files import write_atomically  # noqa: E402
from alignment.reproduce.circle import CIRCLE, POLICIES, STYLES, Training, run, win, with_equilibrium  # noqa: E402
from alignment.tabular.solutions import fit_bradley_terry  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a policy and seed; added to")
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--tau", type=float, default=0.1, help="weight of the KL, of all methods")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--prompts", type=int, default=64, help="held-out prompts")
    parser.add_argument("--answers", type=int, default=32, help="answers to each of them")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.is_file() else []
    known = {(row["policy"], row["seed"]) for row in rows}
    training = Training(
        steps=arguments.steps,
        tau=arguments.tau,
        learning_rate=arguments.learning_rate,
        prompts=arguments.prompts,
        answers=arguments.answers,
    )
    for seed in map(int, arguments.seeds.split(",")):
        for policy in arguments.policies.split(","):
            if not arguments.table and (policy, seed) not in known:
                for row in run(policy, seed, training):
                    rows.append(row)
                    with open(arguments.out, "a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row["policy"], seed, np.mean(row["shares"], 0).round(3), row.get("rewards", ""), flush=True)
    print(tables(rows, arguments.tau))
    if arguments.plot:
        plot(rows, arguments.tau, arguments.plot)


def tables(rows: Sequence[dict[str, Any]], tau: float) -> str:
    """The styles of each policy and how often each style beats it; and how often each policy beats each other one."""
    if not any(row["policy"] == "reference" for row in rows):
        return "No table yet: --policies RLHF comes with the reference, which it needs."
    policies = with_equilibrium(rows, tau)
    lines = ["| policy | " + " | ".join(STYLES) + " | distance | " + " | ".join(f"{s} beats it" for s in STYLES) + " |"]
    lines.append("|---|" + "--:|" * 7)
    target = policies["equilibrium"].mean(1)
    for name, found in policies.items():
        mean = found.mean((0, 1))
        each = np.abs(found.mean(1) - target).sum(-1) / 2  # total variation, a seed
        beats = (CIRCLE @ mean).tolist()
        cells = [*(f"{100 * share:.0f} %" for share in mean), f"{each.mean():.2f}", *(f"{b:.2f}" for b in beats)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    names = list(policies)
    lines += ["", "| | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for row in names:
        cells = [f"{win(policies[row], policies[column]):.3f}" for column in names]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    mu = policies["reference"].mean((0, 1))
    fits = {"Bradley-Terry fit to pairs of the reference": fit_bradley_terry(CIRCLE, np.outer(mu, mu))}
    rewards = [row["rewards"] for row in rows if "rewards" in row]
    if rewards:
        fits["Reward model, mean by style"] = np.mean(rewards, 0)
    for name, fitted in fits.items():
        lines.append(f"\n{name}: " + ", ".join(f"{s} {r:+.2f}" for s, r in zip(STYLES, fitted, strict=True)))
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], tau: float, file: Path) -> None:
    """Styles over training of four policies, and the equilibrium's as dashed lines."""
    target = with_equilibrium(rows, tau)["equilibrium"].mean((0, 1))
    shown = [name for name in ("RLHF", "SP", "MD1", "BR") if any(row["policy"] == name for row in rows)]
    figure = new_figure(3 * len(shown), 3.2)
    for axes, name in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        paths = [np.array(row["path"]) for row in rows if row["policy"] == name]
        for number, label in enumerate(STYLES):
            for path in paths:
                smooth = np.convolve(path[:, number], np.ones(10) / 10, mode="valid")
                axes.plot(
                    np.arange(len(smooth)) + 10, smooth, color=f"C{number}", label=label if path is paths[0] else None
                )
            axes.axhline(target[number], color=f"C{number}", ls="--", lw=1)
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share of the answers")
    figure.axes[0].legend(frameon=False)
    write_atomically(file, png(figure))


if __name__ == "__main__":
    main()
