"""One contender of `benchmark.py cut`, in a process of its own, called with JOB.json RESULT.json."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
import torch  # noqa: E402

from alignment.batching.groups import Unit  # noqa: E402
from alignment.batching.steps import StepSampler  # noqa: E402
from alignment.data.views import Judged  # noqa: E402
from scripts._benchmark_dpo import Clock, now, peak_memory_mb  # noqa: E402

MARGIN, WEIGHT, RATE = 1.2, 0.5, 1e-5


def config_of(job: dict[str, Any]) -> Any:
    from alignment.config import DataConfig, ModelConfig, PeftConfig, RunConfig, TrainingConfig

    return RunConfig(
        method="cut",
        seed=job["seed"],
        model=ModelConfig(path=job["model"], dtype="float32"),
        data=DataConfig(eval_fraction=0.0, max_prompt_length=job["limit"], max_completion_length=job["limit"]),
        peft=PeftConfig(method="none"),
        loss={"name": "cut", "variant": "authors_code", "margin": MARGIN, "weight": WEIGHT},
        training=TrainingConfig(
            learning_rate=RATE,
            batch_size=job["batch_size"],
            max_steps=job["steps"],
            layout=job["contender"].removeprefix("ours-"),
            bf16=False,
            scheduler="constant",
            warmup_ratio=0.0,
        ),
    )


def ours(job: dict[str, Any], clock: Clock) -> list[float]:
    """CUTTrainer; the loss of each step."""
    from alignment.trainers.cut import CUTTrainer

    with tempfile.TemporaryDirectory() as folder:
        records = [Judged(**record) for record in job["records"]]
        trainer = CUTTrainer(config=config_of(job), train=records, folder=folder, callbacks=[clock])
        clock.watch(trainer.model)
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def two_streams(job: dict[str, Any], clock: Clock) -> list[float]:
    """The step of github.com/wwxu21/CUT written plainly: both streams are rows of one padded batch."""
    from alignment.batching.judged import judged_units
    from alignment.config import ModelConfig
    from alignment.data.judgment_prompts import load_judgment_template
    from alignment.models.loading import load_model, load_tokenizer

    settings = config_of(job | {"contender": "ours-padded"})
    tokenizer = load_tokenizer(ModelConfig(path=job["model"]))
    records = [Judged(**record) for record in job["records"]]
    template = load_judgment_template("chat")
    units, _ = judged_units(records, tokenizer, settings.data, template, "authors_code")
    model: Any = load_model(ModelConfig(path=job["model"], dtype="float32"))
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    clock.watch(model)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True), []
    clock.begun = now()
    for step in StepSampler(len(units), job["batch_size"], job["steps"], job["seed"]):
        clock.tokens.append(0)
        loss = stream_loss(model, [units[index] for index in step], job["contender"] == "two-streams-lean")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        clock.ends.append(now())
    return losses


def stream_loss(model: Any, units: Sequence[Unit], lean: bool) -> torch.Tensor:
    """L of a batch. First stream: satisfactory answers, and the others with their judgment; second: without it."""
    bad = [number for number, unit in enumerate(units) if len(unit.groups) == 2]
    again = bad if lean else range(len(units))
    first = log_probs(model, [unit.groups[-1] for unit in units], [units[number].groups[0] for number in again])
    stream, other = first[: len(units)], dict(zip(again, first[len(units) :], strict=True))
    loss = -torch.cat(stream).mean()
    if not bad:
        return loss
    judged, plain = torch.cat([stream[number] for number in bad]), torch.cat([other[number] for number in bad])
    detected = (judged - plain).detach() > math.log(MARGIN)
    unlikely = torch.where(detected, -WEIGHT * torch.log1p(-plain.exp().clamp(max=1 - 1e-7)), -plain)
    return (loss + unlikely.mean()) / 2


def log_probs(model: Any, *streams: Sequence[Any]) -> list[torch.Tensor]:
    """Log-probs of each answer's tokens; all rows in one batch, padded to the longest on the right."""
    groups = [group for stream in streams for group in stream]
    rows = [(*group.prompt, *group.completions[0]) for group in groups]
    width, device = max(map(len, rows)), next(model.parameters()).device
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows]).to(device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]).to(device)
    logps = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    chosen = logps.gather(-1, ids[:, 1:, None]).squeeze(-1)
    starts = [len(group.prompt) - 1 for group in groups]
    ends = [start + len(group.completions[0]) for start, group in zip(starts, groups, strict=True)]
    return [row[start:end] for row, start, end in zip(chosen, starts, ends, strict=True)]


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    clock = Clock()
    losses = (ours if job["contender"].startswith("ours") else two_streams)(job, clock)
    result = {"losses": losses, "seconds": clock.seconds, "encoded": clock.tokens, "peak_memory_mb": peak_memory_mb()}
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
