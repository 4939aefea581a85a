"""Short runs of every trainer, for comparing what one process and several make of them.

Run by tests, on one process or under `torch.distributed.run` on several: `runs.py OUT CASE[=CHECKPOINT] …`. With the
settings of FSDP2 or ZeRO-3 in the environment (tests/distributed/sharding.py) the models are sharded. Each case leaves
in OUT/CASE the saved model and, from the first process, `found.json`: the loss of every step, and the log-probs that
the trained model itself gives some answers. With a checkpoint, of any number of processes, it goes on from there, and
leaves them in OUT/CASE.resumed.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from alignment.batching.units import pair_units
from alignment.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PeftConfig,
    RolloutConfig,
    RunConfig,
    TrainingConfig,
)
from alignment.feedback.adapters import Function
from alignment.models import logps
from alignment.models.logps import token_logps
from alignment.trainers.cut import CUTTrainer
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.gap_model import GapTrainer
from alignment.trainers.map_units import token_rows
from alignment.trainers.nash_md import NashMDTrainer
from alignment.trainers.p3o import P3OTrainer
from alignment.trainers.pit import pit_trainer
from alignment.trainers.ppo import PPOTrainer
from alignment.trainers.reward import RewardTrainer
from tests.distributed.sharding import shard_on_cpu
from tests.trainers.judgments import some_judgments
from tests.trainers.online_runs import prompts, references, short
from tests.trainers.pairs import some_pairs

STEPS = 3  # of an online trainer: a phase, and half of the next one


@dataclass(frozen=True)
class Kind:
    """A trainer and what it is run with."""

    build: Callable[..., Any]
    loss: dict[str, Any]
    data: Callable[[], list[Any]]
    online: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # further ones, as `section.name`


KINDS: dict[str, Kind] = {
    "dpo": Kind(DPOTrainer, {"name": "sigmoid"}, some_pairs),
    "tr_dpo": Kind(
        DPOTrainer,
        {"name": "sigmoid"},
        some_pairs,
        settings={"reference.update_steps": 1, "reference.update_rate": 0.5, "training.gradient_checkpointing": True},
    ),
    "reward": Kind(RewardTrainer, {"name": "bradley_terry"}, some_pairs),
    "p3o": Kind(P3OTrainer, {"name": "p3o"}, prompts, online=True),
    "nash_md": Kind(NashMDTrainer, {"name": "nash_md"}, prompts, online=True),
    "cut": Kind(CUTTrainer, {"name": "cut", "margin": 1.1}, some_judgments),
    "pit_gap": Kind(GapTrainer, {"name": "gap"}, some_pairs),
    "pit": Kind(pit_trainer, {"name": "p3o"}, references, online=True),
    "ppo": Kind(PPOTrainer, {"name": "ppo"}, prompts, online=True),
}
KEPT = ("dpo.shared.lora", "dpo.padded.none", "p3o.shared.lora")  # leave a checkpoint of every step
FEW, PLAIN = 2**15, logps.CHUNK_ELEMENTS  # logits alive at a time: on shared rows the head runs in chunks of 8 tokens
DPO_MORE = ("dpo.shared.none", "dpo.padded.lora")


def all_cases() -> list[str]:
    """`TRAINER.LAYOUT.WEIGHTS`: all four of DPO; of the others LoRA on shared rows, and all weights on padded ones."""
    return [*DPO_MORE, *(f"{kind}.{rest}" for kind in KINDS for rest in ("shared.lora", "padded.none"))]


def config_of(case: str, **training: Any) -> RunConfig:
    """A step that two processes cannot halve, in several micro-batches, of which they have different numbers."""
    method, layout, weights = case.split(".")
    settings: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 5, "max_steps": STEPS, "token_budget": 60}
    settings |= {"bf16": False, "layout": layout, "scheduler": "constant", **training}
    if KINDS[method].online:
        settings["batch_size"] = 3
    if case in KEPT:
        settings |= {"save_steps": 1, "save_total_limit": STEPS}
    config = RunConfig(
        method=method,
        model=ModelConfig(path="tiny"),
        data=DataConfig(eval_fraction=0.0),
        peft=PeftConfig(method=weights, r=4),
        loss=dict(KINDS[method].loss),
        rollout=RolloutConfig(prompts=6, max_new_tokens=8, batch_size=3),
        training=TrainingConfig(**settings),
        evaluation=EvaluationConfig(prompts=0),
    )
    for name, value in KINDS[method].settings.items():
        section, _, key = name.partition(".")
        setattr(getattr(config, section), key, value)
    return config


def trainer_of(case: str, folder: Path, config: RunConfig | None = None) -> Any:
    kind = KINDS[case.split(".")[0]]
    given: dict[str, Any] = {"feedback": Function(short)} if kind.online else {}
    return kind.build(config=config or config_of(case), train=kind.data(), folder=folder, **given)


def finish(trainer: Any) -> None:
    """Save the model, and what the trained model itself says."""
    trainer.save_policy(trainer.folder / "model")
    found: dict[str, Any] = {"losses": losses(trainer)}
    if not hasattr(trainer, "card"):
        found["logps"] = [list(row) for rows in own_logps(trainer) for row in rows]
    if trainer.is_world_process_zero():
        (trainer.folder / "found.json").write_text(json.dumps(found))


def losses(trainer: Any) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def own_logps(trainer: Any) -> list[Any]:
    units, _ = pair_units(some_pairs(3), trainer.tokenizer, trainer.config.data)
    trainer.filler = type(units[0])("filler", units[0].groups, {})
    return token_rows(trainer, units, lambda model, piece, batch: token_logps(model, batch))


def main(out: Path, cases: Sequence[str]) -> None:
    try:
        for case in cases:
            run(out, case)
    finally:
        logps.CHUNK_ELEMENTS = PLAIN  # the tests call this in their own process, too


def run(out: Path, case: str) -> None:
    name, _, checkpoint = case.partition("=")
    torch.manual_seed(0)
    logps.CHUNK_ELEMENTS = FEW if ".shared." in name else PLAIN
    trainer = trainer_of(name, out / (f"{name}.resumed" if checkpoint else name))
    if checkpoint:
        trainer.resume(Path(checkpoint))
    else:
        if trainer.accelerator.num_processes == 1:
            trainer.save_policy(trainer.folder / "start")  # what a difference of final weights is measured by
        trainer.train()
    finish(trainer)
    del trainer
    gc.collect()
    unset_hf_deepspeed_config()  # the next model is loaded as the first one was: whole


if __name__ == "__main__":
    shard_on_cpu()
    main(Path(sys.argv[1]), sys.argv[2:] or all_cases())
