"""Rollouts from a vLLM server, through TRL's client: generation on GPUs of its own, weights pushed after each update.

Start the server as TRL's guide says, with log-probs of what was sampled from (temperature and filters included):

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs \\
        --weight-transfer-config '{"backend": "nccl"}'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from alignment.errors import UserError
from alignment.models.adapters import is_adapted
from alignment.models.logps import causal_lm
from alignment.models.reference import merged_weight
from alignment.rollouts.decode import cut_at_end
from alignment.rollouts.sampler import Rollout, check_room, end_tokens, text_of
from alignment.rollouts.sampling import SamplingSettings, row_seed

REQUESTS = 64  # on their way at a time; the server batches them


class ServedSampler:
    """A `Sampler` over a vLLM server that holds the policy.

    The server draws with its own random numbers: same seed, same rollouts, but not those of `PolicySampler`.

    Args:
        model: the policy here, unwrapped; its weights are those that `update` pushes.
        client: TRL's VLLMClient, or whatever answers like it; see `connect`.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: SamplingSettings, client: Any) -> None:
        self.model, self.tokenizer, self.settings, self.client = model, tokenizer, settings, client

    def sample(self, prompts: Sequence[Sequence[int]], k: int = 1, seed: int = 0) -> list[Rollout]:
        """k rollouts of each prompt, as `Sampler` says.

        Raises:
            UserError: an empty prompt, one that leaves no room for max_new_tokens, or a server without log-probs.
        """
        wanted = [tuple(prompt) for prompt in prompts]
        check_room(self.model, wanted, self.settings.max_new_tokens)
        ends = end_tokens(self.model, self.tokenizer)
        before: Counter[tuple[int, ...]] = Counter()
        seeds = []
        for prompt in wanted:
            seeds.append(row_seed(prompt, before[prompt], seed) % 2**31)  # a prompt that comes again is drawn anew
            before[prompt] += 1
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda prompt, own: self._ask(prompt, k, own, ends), wanted, seeds))
        return [rollout for answer in answers for rollout in answer]

    def _ask(self, prompt: tuple[int, ...], k: int, seed: int, ends: set[int]) -> list[Rollout]:
        settings = self.settings
        found = self.client.generate(
            [list(prompt)],
            n=k,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_tokens=settings.max_new_tokens,
            logprobs=0,  # of the token drawn, and of no other
            generation_kwargs={"seed": seed, "stop_token_ids": sorted(ends)},
        )
        if found["logprobs"] is None:
            raise UserError("the vLLM server returned no log-probs: start it with --logprobs-mode processed_logprobs")
        rollouts = []
        for ids, logps in zip(found["completion_ids"], found["logprobs"], strict=True):
            completion = cut_at_end(ids, [token[0] for token in logps], ends)
            rollouts.append(Rollout(prompt, *completion, text_of(self.tokenizer, completion.ids)))
        return rollouts

    def update(self, policy: Any) -> None:
        """Push the policy's weights, adapters merged, and drop what the server remembers of the old ones."""
        weights = dict(plain_weights(policy))
        described = [(name, str(each.dtype).removeprefix("torch."), list(each.shape)) for name, each in weights.items()]
        self.client.update_named_params(described, iter(weights.items()))
        self.client.reset_prefix_cache()


def connect(url: str, device: Any, timeout: float = 240.0) -> Any:
    """TRL's client of the vLLM server at `url`, ready to push weights from `device` (of rank 0, a GPU).

    Raises:
        UserError: TRL or vLLM is missing, or no server answers within `timeout` seconds.
    """
    try:
        from trl.generation.vllm_client import VLLMClient

        client = VLLMClient(url, connection_timeout=timeout)
    except ImportError as error:
        raise UserError(f"sampling from vLLM: {error}\nMend: pip install 'trl[vllm]'") from error
    except ConnectionError as error:
        raise UserError(
            f"no vLLM server answers at {url}: start one with `vllm serve`, see docs/rollouts.md"
        ) from error
    client.init_communicator(device)
    return client


def plain_weights(policy: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) of the plain model, with LoRA merged into the weights that it changes."""
    core = causal_lm(policy)
    for name, weight in core.named_parameters():
        if not is_adapted(policy):
            yield name, weight.detach()
        elif ".lora_" not in name:
            plain = name.replace(".base_layer", "")
            yield plain, (weight if plain == name else merged_weight(core, plain)).detach()
