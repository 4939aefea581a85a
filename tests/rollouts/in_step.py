"""Two processes sample from one sharded model: `torchrun --nproc_per_node 2 -m tests.rollouts.in_step`.

Their completions end at different times and they have different numbers of batches, so that without keeping in step one
would wait for the other for ever. Each compares its rollouts with those of the whole model.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from alignment.rollouts.sampler import PolicySampler
from alignment.rollouts.sampling import SamplingSettings
from tests.batching.architectures import build
from tests.rollouts.policies import PROMPTS, Numbers


def gather(value: torch.Tensor) -> torch.Tensor:
    found = [torch.zeros_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(found, value)
    return torch.cat(found)


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    settings = SamplingSettings(20, batch_size=3)
    mine = PROMPTS[: 1 + 2 * rank]  # 4 and 12 rollouts, in 2 and 4 batches
    whole = build("Llama")
    whole.generation_config.eos_token_id = list(range(2, 40))
    expected = PolicySampler(whole, Numbers(), settings).sample(mine, k=4, seed=rank)
    sharded = build("Llama")
    sharded.generation_config.eos_token_id = list(range(2, 40))
    for layer in sharded.model.layers:
        fully_shard(layer)
    fully_shard(sharded)
    accelerator = SimpleNamespace(  # what is asked of accelerate's, which shards on no CPU
        num_processes=2,
        device=torch.device("cpu"),
        gather=gather,
        unwrap_model=lambda model: model,
        state=SimpleNamespace(deepspeed_plugin=None, fsdp_plugin=SimpleNamespace(fsdp_version=2)),
    )
    sampler = PolicySampler(sharded, Numbers(), settings, accelerator)
    found = sampler.sample(mine, k=4, seed=rank)
    assert [rollout.completion for rollout in found] == [rollout.completion for rollout in expected]
    print(f"rank {rank}: {sum(len(rollout.completion) for rollout in found)} tokens as expected")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
