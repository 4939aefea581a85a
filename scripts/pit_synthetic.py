"""PIT on answers whose quality is known: the whole of it against its ablations.

    python scripts/pit_synthetic.py --out pit.jsonl    # every variant, three seeds

A prompt asks for the opposites of three words, and an answer pairs each word with one: "hot cold, up big, old new".
Its quality is the share of the words that stand beside their opposite. Of a pair the rejected answer has two or three
errors and the chosen one fewer, but mostly some: imitation alone stops short. Every stage takes its own third of the
prompts: a policy and an improver by imitation, a reward model and a gap model from the improver's weights, the policy
trained by P3O on that reward, for a few steps that leave something to improve, and then the improver by PIT, once for
each variant, with equally many steps. Measured on held-out prompts: of the references with an error, how many the
improver raises or lowers, and what it does to those without; for the answers of the data, and for those of the trained
policy. A variant in the file already is not trained again; the stages before it are kept in --folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.reproduce.opposites import VARIANTS, Stages, Training, run  # noqa: E402


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: means over seeds, and the lowest and highest seed of what is raised."""
    heads = ["references", "variant", "seeds", "quality before", "after", "raised", "lowest, highest", "lowered"]
    lines = ["| " + " | ".join([*heads, "change of perfect ones"]) + " |", "|---|---|" + "--:|" * 7]
    for kind, name in (("data", "of the data"), ("policy", "of the policy")):
        for variant in VARIANTS:
            found = [row[kind] for row in rows if row["variant"] == variant]
            if found:
                mean = {key: statistics.fmean(row[key] for row in found) for key in found[0]}
                each = sorted(row["raised"] for row in found)
                cells = [name, variant, str(len(found)), f"{mean['before']:.3f}", f"{mean['after']:.3f}"]
                cells += [f"{100 * mean['raised']:.0f} %", f"{100 * each[0]:.0f}, {100 * each[-1]:.0f} %"]
                cells += [f"{100 * mean['lowered']:.0f} %", f"{mean['perfect_change']:+.3f}"]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a variant and seed; added to")
    parser.add_argument("--folder", type=Path, help="where the stages are kept; otherwise they are thrown away")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pairs", type=int, default=Training.pairs, help="training pairs of all three parts")
    parser.add_argument("--held-out", type=int, default=Training.held_out, help="held-out pairs")
    parser.add_argument("--steps-sft", type=int, default=Training.steps_sft)
    parser.add_argument("--steps-scorer", type=int, default=Training.steps_scorer)
    parser.add_argument("--steps-policy", type=int, default=Training.steps_policy, help="of P3O")
    parser.add_argument("--steps", type=int, default=Training.steps, help="of PIT")
    parser.add_argument("--learning-rate", type=float, default=Training.learning_rate, help="of P3O, and of PIT")
    parser.add_argument("--kl", type=float, default=Training.kl, help="weight of the KL")
    parser.add_argument(
        "--temperature", type=float, default=Training.temperature, help="of the improver when it is measured"
    )
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.is_file() else []
    known = {(row["variant"], row["seed"]) for row in rows}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in map(int, arguments.seeds.split(",")):
            stages = Stages((arguments.folder or Path(scratch)) / str(seed), seed, arguments)
            for variant in arguments.variants.split(","):
                if (variant, seed) not in known:
                    rows.append(run(variant, stages))
                    with open(arguments.out, "a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                    print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
