"""The memory of a run by part, on one process: from its configuration, its data's lengths and its model's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alignment.batching.groups import Unit
from alignment.config import RunConfig
from alignment.errors import UserError, unknown
from alignment.launch.training_run import METHODS
from alignment.memory import batches, models, passes
from alignment.memory.traced import with_layers

# Bytes of an optimiser's state for each weight that is trained, by transformers' name; others are taken for AdamW.
OPTIMISERS = {
    "adamw_torch_fused": 8,
    "adamw_torch": 8,
    "adamw_bnb_8bit": 2,
    "adamw_8bit": 2,
    "paged_adamw_8bit": 2,
    "lion_32bit": 4,
    "lion_8bit": 1,
    "adagrad": 4,
    "rmsprop": 4,
    "sgd": 0,
}
ADAMW = 8
# What is there before a run holds anything. On a CPU: the imported libraries, measured. On a GPU: CUDA's context and
# the workspaces of its libraries, an assumption.
RUNTIME = {"cpu": 530 * 10**6, "cuda": 800 * 10**6}
BUCKET = 5 * 10**8  # elements that DeepSpeed reduces at once
STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3")
STAGED = {"cut_online": "cut", "ilf": "sft", "pit_full": "pit"}  # the training that takes most of each


@dataclass
class Estimate:
    """Bytes on one process: of what is always there, and of what training, sampling or loading takes besides."""

    weights: int  # of the policy, adapters and heads included
    reference: int  # a second set of weights; 0 where the reference is the base, or none is read
    others: int  # of models that give feedback
    gradients: int
    optimiser: int
    activations: int | None  # of the largest micro-batch; None where the architecture cannot be traced
    cache: int  # keys and values while sampling
    sampling: int  # what a pass takes beside them
    runtime: int
    gathered: int = 0  # sharded or copied weights and gradients that are put together for a moment
    stored: int = 0  # on a CPU: the files that weights are read from, which are mapped into memory meanwhile
    disk: int = 0  # checkpoints and the saved model
    notes: list[str] = field(default_factory=list)

    @property
    def always(self) -> int:
        return self.runtime + self.weights + self.reference + self.others + self.optimiser + self.gathered

    @property
    def training(self) -> int:
        return self.always + self.gradients + (self.activations or 0)

    @property
    def while_sampling(self) -> int:
        return self.always + self.cache + self.sampling

    @property
    def loading(self) -> int:
        return self.runtime + self.weights + self.stored

    @property
    def total(self) -> int:
        """Bytes at the highest."""
        return max(self.training, self.while_sampling, self.loading)


def estimate(
    config: RunConfig,
    device: str = "cpu",
    processes: int = 1,
    strategy: str = "ddp",
    units: Sequence[Unit] | None = None,
) -> Estimate:
    """The memory of each of `processes` processes of a run on a device of the kind `device` (cpu, cuda).

    Args:
        config: as composed; `auto` precision is what this machine has.
        strategy: how processes share weights: ddp (not at all), fsdp2, zero2 or zero3.
        units: the training data, where it is at hand; None reads it where that is cheap (local, at most 50 MB), else
            takes prompts and completions as long as data.max_* allow.

    Raises:
        UserError: a model, data or method that the run would refuse, too.
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    notes: list[str] = []
    config = single_stage(config, notes)
    settings = models.architecture(config.model)
    units = read_units(config, notes) if units is None else units
    if batches.is_online(config) or config.method == "best_of_n":
        units = batches.sampled(config, units)
    policy = models.policy(settings, config)
    second = models.reference(settings, config)
    trained = 0 if config.method == "best_of_n" else models.trained_elements(policy)
    per_weight = OPTIMISERS.get(config.training.optimizer, ADAMW)
    if config.training.optimizer not in OPTIMISERS:
        notes.append(f"training.optimizer={config.training.optimizer} is not known here: counted as AdamW")
    taken = None if not trained else highest(settings, config, units, processes, device, notes)
    cache, beside = 0, 0
    for wanted in batches.samplings(config, units, processes):
        cache, beside = max((cache, beside), sampled(settings, config, wanted, notes), key=sum)
    found = Estimate(
        weights=models.held(policy, config.model),
        reference=models.bytes_of(second) if second is not None else 0,
        others=models.others(config),
        gradients=4 * trained,
        optimiser=per_weight * trained,
        activations=taken if trained else 0,
        cache=cache,
        sampling=beside,
        runtime=RUNTIME[device],
        stored=models.stored(config.model) if device == "cpu" else 0,
        disk=on_disk(config, 4 * trained, per_weight * trained),
        notes=notes,
    )
    return shared_out(found, settings, config, processes, strategy) if processes > 1 else found


def single_stage(config: RunConfig, notes: list[str]) -> RunConfig:
    """The run itself, or of a method of several stages the training that takes most."""
    if config.method in STAGED:
        notes.append(
            f"{config.method} is several runs one after the other; this is its training with {STAGED[config.method]}"
        )
        is_sampled = config.method == "cut_online"  # what is judged, and trained on, is sampled on the way
        config = replace(config, method=STAGED[config.method])
        if config.method == "sft":
            config.loss = {"name": "nll"}
        if is_sampled:
            limit = min(config.data.max_completion_length, config.rollout.max_new_tokens)
            config.data = replace(config.data, path=None, eval_path=None, max_completion_length=limit)
    if config.method not in METHODS:
        raise unknown("method", config.method, METHODS)
    return config


def read_units(config: RunConfig, notes: list[str]) -> Sequence[Unit]:
    if batches.is_cheap(config.data):
        return batches.units_of(config)
    notes.append("the data was not read: prompts and completions as long as data.max_* allow")
    return batches.stand_ins(config)


def highest(
    settings: Any, config: RunConfig, units: Sequence[Unit], processes: int, device: str, notes: list[str]
) -> int | None:
    """Activations of the largest micro-batch, in padded rows where the architecture cannot share the prompt."""
    for layout in dict.fromkeys((config.training.layout, "padded")):
        piece = batches.largest(config, units, layout, processes, device == "cpu")
        try:
            return passes.activations(settings, config, piece, layout)
        except UserError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            notes.append(f"{layout} rows of this architecture cannot be traced ({reason})")
    notes.append("activations are not counted")
    return None


def sampled(settings: Any, config: RunConfig, wanted: batches.Sampling, notes: list[str]) -> tuple[int, int]:
    try:
        return passes.sampling(settings, config, wanted)
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        notes.append(f"sampling from this architecture cannot be traced and is not counted ({reason})")
        return 0, 0


def on_disk(config: RunConfig, weights: int, optimiser: int) -> int:
    """Bytes of the checkpoints that are kept at once, one more while it is written, and of the saved model."""
    training = config.training
    saves = training.save_steps or training.keep_best
    checkpoints = training.save_total_limit + 1 if saves else 1
    moving = weights if config.reference.update_steps is not None else 0
    return checkpoints * (weights + optimiser + moving) + weights


def shared_out(found: Estimate, settings: Any, config: RunConfig, processes: int, strategy: str) -> Estimate:
    """What one of several processes holds. Arithmetic: it was not measured.

    A frozen reference is not sharded by accelerate: every process holds all of it.
    """

    def part(size: int) -> int:
        return -(-size // processes)

    if strategy == "ddp":
        return replace(found, gathered=found.gradients)  # DDP's buckets
    sharded = replace(found, gradients=part(found.gradients), optimiser=part(found.optimiser))
    if strategy == "zero2":
        return replace(sharded, gathered=min(4 * BUCKET, found.gradients))
    one, two = (models.bytes_of(models.policy(with_layers(settings, n), config)) for n in (1, 2))
    layer, root = two - one, 2 * one - two
    # Embeddings and head stay together from forward to backward; the layer that is computed, and the next one.
    return replace(sharded, weights=part(found.weights), gathered=root + 2 * layer)
