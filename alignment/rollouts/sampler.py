"""Prompts -> rollouts: from the policy, or from its mixture with the reference (from a vLLM server: served.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Protocol

import torch

from alignment.errors import UserError
from alignment.models.logps import causal_lm
from alignment.models.reference import AdapterOff, Reference, eval_mode
from alignment.out_of_memory import named
from alignment.rollouts.decode import AdapterAndBase, Completion, Policy, Rows, TwoPolicies, decode, decode_by_generate
from alignment.rollouts.prefix_check import why_not_shared
from alignment.rollouts.sampling import SamplingSettings, random_numbers


@dataclass(frozen=True)
class Rollout:
    """A prompt and one sampled completion, as the token ids that were drawn: never decoded and encoded again."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]  # with the end token, where it came to one
    logps: tuple[float, ...]  # of each completion token, under the distribution that it was drawn from
    finished: bool  # False: cut at max_new_tokens
    text: str  # without special tokens and outer white space, for reading


class Sampler(Protocol):
    """What an online method holds. The same seed and prompts give the same rollouts, as far as rounding is the same."""

    settings: SamplingSettings

    def sample(self, prompts: Sequence[Sequence[int]], k: int = 1, seed: int = 0) -> list[Rollout]:
        """k rollouts of each prompt (token ids), in the prompts' order, those of a prompt side by side."""

    def update(self, policy: Any) -> None:
        """Called after each update of the (unwrapped) policy: a sampler with weights of its own takes them over."""


class PolicySampler:
    """Samples from a transformers model in this process.

    Args:
        model: a causal language model, with or without a peft adapter; wrapped ones with the accelerator that did it.
        tokenizer: its tokenizer, for the end token and the text.
        settings: how to sample.
        accelerator: with several processes under FSDP, each must make the same calls.
        after_batch: called with the number of rollouts made so far.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: SamplingSettings,
        accelerator: Any = None,
        after_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.accelerator, self.after_batch = accelerator, after_batch

    def update(self, policy: Any) -> None:
        """Nothing: the policy itself is sampled from."""

    def rows(self, model: Any) -> Rows | None:
        """What `decode` runs over; None where the model's cache is of a kind that it does not know."""
        return Policy(causal_lm(model), model) if why_not_shared(model) is None else None

    def sample(self, prompts: Sequence[Sequence[int]], k: int = 1, seed: int = 0) -> list[Rollout]:
        """k rollouts of each prompt, as `Sampler` says. The random state outside is neither used nor changed.

        Raises:
            UserError: an empty prompt, or one that leaves no room for max_new_tokens.
        """
        wanted = [tuple(prompt) for prompt in prompts for _ in range(k)]
        check_room(self.model, wanted, self.settings.max_new_tokens)
        uniform = torch.from_numpy(random_numbers(wanted, self.settings.max_new_tokens, seed))
        ends = end_tokens(self.model, self.tokenizer)
        found: dict[int, Completion] = {}
        with unwrapped(self.model, self.accelerator) as model, eval_mode(model):
            rows = self.rows(model)
            # Of the few models without one of transformers' caches, RWKV mixes up the rows of a batch.
            size = self.settings.batch_size if causal_lm(model)._supports_default_dynamic_cache() else 1
            for batch in self._as_many_on_all_ranks(cut(wanted, size, alike=rows is None)):
                # A batch without rows is there for the other ranks: something must go through the model.
                chosen = [wanted[i] for i in batch] or [(0,)]
                random = uniform[batch] if batch else torch.zeros(1, self.settings.max_new_tokens).double()
                with named(partial(too_many, chosen, self.settings)):
                    if rows is None:
                        made = decode_by_generate(model, chosen, random, self.settings, ends)
                    else:
                        made = decode(rows, chosen, random, self.settings, ends, self._any_rank)
                found.update(zip(batch, made, strict=False))
                if self.after_batch is not None:
                    self.after_batch(len(found))
        return [Rollout(prompt, *found[i], text_of(self.tokenizer, found[i].ids)) for i, prompt in enumerate(wanted)]

    def _in_step(self) -> bool:
        """Whether a forward pass of one rank waits for the others: FSDP gathers its shards in it."""
        return (
            self.accelerator is not None
            and self.accelerator.num_processes > 1
            and getattr(self.accelerator.state, "fsdp_plugin", None) is not None
        )

    def _as_many_on_all_ranks(self, batches: list[list[int]]) -> list[list[int]]:
        if not self._in_step():
            return batches
        counts = self.accelerator.gather(torch.tensor([len(batches)], device=self.accelerator.device))
        return batches + [[]] * (int(counts.max()) - len(batches))

    def _any_rank(self, mine: bool) -> bool:
        if not self._in_step():
            return mine
        return bool(self.accelerator.gather(torch.tensor([mine], device=self.accelerator.device)).any())


def too_many(prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> str:
    """Shape and mend of a batch of completions that did not fit into memory."""
    return (
        f"{len(prompts)} completions decoded at once, of prompts of up to {max(map(len, prompts))} tokens and "
        f"{settings.max_new_tokens} new ones each\nMend: a smaller rollout.batch_size (training), "
        "evaluation.batch_size (held-out prompts) or --batch-size (commands), which changes answers by rounding alone"
    )


class MixtureSampler(PolicySampler):
    """Samples from the geometric mixture of policy and reference, one token at a time (Nash-MD, 2312.00886).

    Each token is drawn from softmax((1-beta) l + beta l_mu), with l and l_mu the two next-token log-probs; a
    temperature divides both. That is not the mixture of whole completions, whose normalisers differ with the prefix:
    the paper samples this way, too. The rollouts' log-probs are the mixture's.

    Args:
        reference: the policy's own base under LoRA (`AdapterOff`; one pass for both where peft can), or another model.
        beta: 0 is the policy, 1 the reference.

    Raises:
        UserError: beta outside [0, 1], other vocabularies, or (`sample`) a model whose cache cannot be shared.
    """

    def __init__(
        self,
        model: Any,
        reference: Reference,
        tokenizer: Any,
        settings: SamplingSettings,
        beta: float,
        accelerator: Any = None,
    ) -> None:
        super().__init__(model, tokenizer, settings, accelerator)
        self.reference, self.beta = reference, beta
        if not 0 <= beta <= 1:
            raise UserError(f"the mixture's beta is {beta}: it must be between 0 (the policy) and 1 (the reference)")
        if not isinstance(reference, AdapterOff):
            sizes = [causal_lm(each).config.get_text_config().vocab_size for each in (model, reference.model)]
            if sizes[0] != sizes[1]:
                raise UserError(
                    f"no mixture: the policy's vocabulary has {sizes[0]} tokens, the reference's {sizes[1]}"
                )

    def rows(self, model: Any) -> Rows:
        core = causal_lm(model)
        if isinstance(self.reference, AdapterOff):
            reference = Policy(core, _without_adapter(model))
        else:
            reference = Policy(causal_lm(self.reference.model), self.reference.model)
        for each in (model, reference.core):
            reason = why_not_shared(each)
            if reason is not None:
                raise UserError(f"{type(causal_lm(each)).__name__} cannot be sampled in a mixture: {reason}")
        if self.beta in (0, 1):
            return reference if self.beta else Policy(core, model)
        if isinstance(self.reference, AdapterOff) and takes_adapter_names(model):
            return AdapterAndBase(model, self.beta)
        return TwoPolicies(Policy(core, model), reference, self.beta)


def _without_adapter(model: Any) -> Callable[..., Any]:
    def call(**inputs: Any) -> Any:
        with model.disable_adapter():
            return model(**inputs)

    return call


def takes_adapter_names(policy: Any) -> bool:
    """Whether peft can give the rows of one batch different adapters: a single plain LoRA, not merged."""
    active = policy.active_adapters
    settings = policy.peft_config[active[0]]
    merged = any(getattr(module, "merged", False) is True for module in policy.modules())
    return len(active) == 1 and settings.peft_type == "LORA" and not settings.use_dora and not merged


@contextmanager
def unwrapped(model: Any, accelerator: Any) -> Iterator[Any]:
    """The model to sample from: bare under DDP, with ZeRO-3's shards gathered, under FSDP as it is.

    Raises:
        UserError: DeepSpeed or FSDP 1 without TRL, whose unwrapping is used.
    """
    if accelerator is None:
        yield model
        return
    shards = [getattr(accelerator.state, name, None) for name in ("deepspeed_plugin", "fsdp_plugin")]
    if not any(shards) or getattr(shards[1], "fsdp_version", None) == 2:
        yield accelerator.unwrap_model(model)
        return
    try:
        from trl.distributed import DistributedBackend
        from trl.models import unwrap_model_for_generation
    except ImportError as error:
        raise UserError("sampling under DeepSpeed or FSDP 1 needs TRL: pip install 'alignment-toolkit[trl]'") from error
    backend, checkpointing = DistributedBackend(accelerator), {"use_reentrant": False}
    with (
        unwrap_model_for_generation(model, accelerator, gradient_checkpointing_kwargs=checkpointing) as inner,
        backend.summon_full_params(model, recurse=False),
    ):
        yield inner


def cut(prompts: Sequence[tuple[int, ...]], batch_size: int, alike: bool = False) -> list[list[int]]:
    """Indices in batches of at most `batch_size`, the same prompts side by side and shorter ones first.

    With `alike`, prompts of a batch have one length.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i]))
    lengths = groupby(order, key=lambda i: len(prompts[i]) if alike else 0)
    groups = [list(group) for _, group in lengths]
    return [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]


def check_room(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse prompts that are empty, or whose completions would run over the model's positions."""
    if not all(prompts):
        raise UserError(f"prompt {[bool(prompt) for prompt in prompts].index(False)} has no tokens")
    limit = getattr(causal_lm(model).config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if limit and longest + max_new_tokens > limit:
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} go over the model's {limit} positions"
            "\nMend: lower max_new_tokens, or leave out longer prompts"
        )


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token id that ends an answer, of the tokenizer and of the model's generation settings."""
    configured = getattr(getattr(causal_lm(model), "generation_config", None), "eos_token_id", None) or []
    return {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a completion, for reading."""
    return tokenizer.decode(ids, skip_special_tokens=True).strip()
