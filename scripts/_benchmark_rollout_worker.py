"""One contender of `benchmark.py rollout`, in a process of its own, called with JOB.json RESULT.json.

The peer runs in another environment, so nothing of ours is imported but where our side is measured. Every completion
runs to max_new_tokens: no end token, so that all contenders make the same number of tokens.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # alignment is found here, installed or not

BETA = 0.25
WARM_UP = 4  # tokens that are made before the clock starts


class NoEnd:
    """Stands in for the tokenizer: no token ends an answer, and text is not wanted."""

    eos_token_id = -1

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return ""


def load(job: dict[str, Any]) -> Any:
    dtype = getattr(torch, job["dtype"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype).eval()
    model.generation_config = GenerationConfig()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def padded_copies(job: dict[str, Any], device: Any) -> tuple[Any, Any]:
    """(ids, mask) of the prompts, each k times, padded on the left."""
    prompts = [prompt for prompt in job["prompts"] for _ in range(job["k"])]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)


# A contender is made from the job; it is called with a number of tokens, and returns how many each completion has.
Run = Callable[[int], int]


def ours(job: dict[str, Any]) -> Run:
    """PolicySampler: a prompt is encoded once for its k completions."""
    from alignment.rollouts.sampler import PolicySampler
    from alignment.rollouts.sampling import SamplingSettings

    return _of_sampler(
        PolicySampler(load(job), NoEnd(), SamplingSettings(batch_size=len(job["prompts"]) * job["k"])), job
    )


def mixture(job: dict[str, Any], lora: bool) -> Run:
    """MixtureSampler: two models, or a policy with LoRA and its base."""
    from alignment.config import PeftConfig
    from alignment.models.adapters import add_adapter
    from alignment.models.reference import AdapterOff, FrozenCopy
    from alignment.rollouts.sampler import MixtureSampler
    from alignment.rollouts.sampling import SamplingSettings

    policy = add_adapter(load(job), PeftConfig()) if lora else load(job)
    settings = SamplingSettings(batch_size=len(job["prompts"]) * job["k"])
    reference: Any = AdapterOff(policy) if lora else FrozenCopy(load(job))
    return _of_sampler(MixtureSampler(policy, reference, NoEnd(), settings, BETA), job)


def _of_sampler(sampler: Any, job: dict[str, Any]) -> Run:
    def run(tokens: int) -> int:
        sampler.settings = dataclasses.replace(sampler.settings, max_new_tokens=tokens)
        return min(len(rollout.completion) for rollout in sampler.sample(job["prompts"], k=job["k"]))

    return run


def generate(job: dict[str, Any]) -> Run:
    """transformers' generate over k copies of each prompt."""
    model = load(job)
    return _of_generate(model, job, model.device)


def peer(job: dict[str, Any]) -> Run:
    """TRL's GeometricMixtureWrapper, with which its NashMDTrainer samples the opponent.

    Without a cache, as by the trainer's defaults (gradient checkpointing switches it off). With one, TRL 1.13 hands the
    same cache to both models, and what comes out is neither's.
    """
    from trl.experimental.nash_md.nash_md_trainer import GeometricMixtureWrapper

    policy, reference = load(job), load(job)
    wrapper = GeometricMixtureWrapper(policy, reference, GenerationConfig(), mixture_coef=BETA, device=policy.device)
    return _of_generate(wrapper, job, policy.device, use_cache=False)


def _of_generate(model: Any, job: dict[str, Any], device: Any, use_cache: bool = True) -> Run:
    ids, mask = padded_copies(job, device)

    def run(tokens: int) -> int:
        how = GenerationConfig(do_sample=True, top_k=0, top_p=1.0, max_new_tokens=tokens, pad_token_id=0)
        how.use_cache = use_cache
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=how)
        return found.shape[1] - ids.shape[1]

    return run


def no_cache(job: dict[str, Any]) -> Run:
    """The mixture of two models with all tokens encoded anew at each step."""
    policy, reference = load(job), load(job)
    prompts, masks = padded_copies(job, policy.device)

    def run(tokens: int) -> int:
        ids, mask = prompts, masks
        for _ in range(tokens):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            inputs = dict(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, use_cache=False)
            own, other = (model(**inputs).logits[:, -1].float() for model in (policy, reference))
            shares = ((1 - BETA) * own + BETA * other).softmax(-1)
            ids = torch.cat([ids, torch.multinomial(shares, 1)], 1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        return ids.shape[1] - prompts.shape[1]

    return run


CONTENDERS: dict[str, Callable[[dict[str, Any]], Run]] = {
    "ours": ours,
    "generate": generate,
    "ours-mixture-lora": lambda job: mixture(job, lora=True),
    "ours-mixture": lambda job: mixture(job, lora=False),
    "mixture-no-cache": no_cache,
    "trl-mixture": peer,
}


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def times(run: Run, tokens: int, repeats: int) -> list[float]:
    """Seconds of each of some runs, after a short one that is not timed."""
    run(WARM_UP)
    found = []
    for _ in range(repeats):
        started = now()
        made = run(tokens)
        found.append(now() - started)
        if made != tokens:
            raise SystemExit(f"{made} tokens were made, not {tokens}")
    return found


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    with torch.no_grad():
        result: dict[str, Any] = {
            "seconds": times(CONTENDERS[job["contender"]](job), job["max_new_tokens"], job["repeats"])
        }
    if job["contender"] == "trl-mixture":
        result["peer"] = f"trl {version('trl')}, transformers {version('transformers')}, torch {torch.__version__}"
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
