"""One contender of `benchmark.py dpo`, in a process of its own: `_benchmark_dpo.py JOB.json RESULT.json`.

A fresh process makes the peak memory the contender's own. The job holds the pairs as messages and as plain text; each
side tokenises what it is used to.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
import torch  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from alignment.batching.steps import StepSampler  # noqa: E402

BETA = 0.1


class Clock(TrainerCallback):
    """When each optimizer step ended, and how many tokens the policy encoded for it.

    A step lasts from the end of the one before: with fetching, collating and logging.
    """

    def __init__(self) -> None:
        self.begun = 0.0
        self.ends: list[float] = []
        self.tokens: list[int] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begun = now()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tokens.append(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(now())

    def watch(self, model: Any) -> None:
        """Count what `model` encodes with a gradient, padding included: the reference's passes are not counted."""

        def count(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            if torch.is_grad_enabled() and self.tokens:
                self.tokens[-1] += kwargs["input_ids"].numel()

        model.register_forward_pre_hook(count, with_kwargs=True)

    @property
    def seconds(self) -> list[float]:
        return [end - begin for begin, end in zip([self.begun, *self.ends], self.ends, strict=False)]


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory_mb() -> float:
    """High-water mark of this process, in units of 10^6 bytes: device memory on CUDA, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would start at the size of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def ours(job: dict[str, Any], folder: Path, clock: Clock) -> dict[str, Any]:
    """Our DPOTrainer: all weights trained, the reference a frozen copy."""
    from alignment.config import DataConfig, ModelConfig, PeftConfig, ReferenceConfig, RunConfig, TrainingConfig
    from alignment.data.views import Pair
    from alignment.trainers.dpo import DPOTrainer

    contender = job["contender"]
    config = RunConfig(
        seed=job["seed"],
        model=ModelConfig(path=job["model"], dtype="float32", attention=contender["attention"]),
        data=DataConfig(eval_fraction=0.0, max_prompt_length=job["limit"], max_completion_length=job["limit"]),
        peft=PeftConfig(method="none"),
        reference=ReferenceConfig(when="precompute" if contender["precompute"] else "step", cache=False),
        loss={"name": "sigmoid", "beta": BETA},
        training=TrainingConfig(
            learning_rate=job["learning_rate"],
            batch_size=job["batch_size"],
            max_steps=job["steps"],
            layout=contender["layout"],
            token_budget=job["token_budget"],
            bf16=job["dtype"] == "bfloat16",
            gradient_checkpointing=contender["gradient_checkpointing"],
            scheduler="linear",
            warmup_ratio=0.0,
        ),
    )
    pairs = [Pair(**row["pair"]) for row in job["rows"]]
    trainer = DPOTrainer(config=config, train=pairs, folder=folder, callbacks=[clock])
    if trainer.layout != contender["layout"]:
        raise SystemExit(f"{contender['name']}: {trainer.layout_note}")
    clock.watch(trainer.model)
    started = now()
    trainer.train()
    groups = [unit.groups[0] for unit in trainer.train_units]
    return {
        # What lies before the first step; without a precomputed reference that is next to nothing.
        "precompute_seconds": clock.begun - started if contender["precompute"] else 0.0,
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
        "digests": [digest(group.prompt, *group.completions) for group in groups],
    }


def trl(job: dict[str, Any], folder: Path, clock: Clock) -> dict[str, Any]:
    """TRL's DPOTrainer: DPOConfig() as it is, but for what the job fixes for both sides and the contender changes."""
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class SameSteps(DPOTrainer):
        """Takes the rows in our order, and notes how long the reference's precomputation lasts."""

        precompute_seconds = 0.0

        def _get_train_sampler(self, *unused: Any) -> Any:
            batches = StepSampler(len(job["rows"]), job["batch_size"], job["steps"], job["seed"])
            return [row for batch in batches for row in batch]

        def _precompute_ref_logps(self, *args: Any) -> Any:
            started = now()
            dataset = super()._precompute_ref_logps(*args)
            self.precompute_seconds = now() - started
            return dataset

    disable_progress_bars()
    contender = job["contender"]
    micro_batch = contender["micro_batch"] or job["batch_size"]
    faster: dict[str, Any] = {"precompute_ref_log_probs": True, "gradient_checkpointing": False}
    arguments = DPOConfig(
        output_dir=str(folder),
        beta=BETA,
        bf16=job["dtype"] == "bfloat16",
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=job["batch_size"] // micro_batch,
        learning_rate=job["learning_rate"],
        max_steps=job["steps"],
        seed=job["seed"],
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        **({} if contender["defaults"] else faster),
    )
    trainer = SameSteps(
        model=job["model"],
        args=arguments,
        train_dataset=Dataset.from_list([row["text"] for row in job["rows"]]),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[clock],
    )
    clock.watch(trainer.model)
    trainer.train()
    rows: Any = trainer.train_dataset
    return {
        "precompute_seconds": trainer.precompute_seconds,
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
        "digests": [digest(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in rows],
    }


def digest(*ids: Any) -> str:
    """A short name for the token ids of a pair."""
    return hashlib.blake2b(json.dumps([list(part) for part in ids]).encode(), digest_size=8).hexdigest()


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    os.environ["TQDM_DISABLE"] = "1"
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        side = ours if job["contender"]["side"] == "ours" else trl
        result = side(job, Path(folder), clock)
    result |= {"seconds": clock.seconds, "encoded": clock.tokens, "peak_memory_mb": peak_memory_mb()}
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
