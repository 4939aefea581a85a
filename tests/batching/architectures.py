"""Tiny random models of many architectures, for tests that the layouts agree.

Weights are drawn with a standard deviation ten times the usual one, so that attention matters: a wrong mask is off by
tenths of a nat. Windows are three tokens, shorter than every sequence.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from alignment.batching.groups import Group
from alignment.config import PeftConfig
from alignment.models.adapters import add_adapter
from alignment.models.logps import attach

VOCABULARY, WINDOW, STD = 199, 3, 0.2
HYBRID = ["sliding_attention", "full_attention", "sliding_attention"]
COMMON: dict[str, Any] = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=STD,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
ALL_HEADS = COMMON | {"num_key_value_heads": 4}
GPT2_LIKE: dict[str, Any] = dict(
    vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=128, initializer_range=STD
) | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
SLIDING = {"sliding_window": WINDOW}
MIXED = {"sliding_window": WINDOW, "layer_types": HYBRID, "head_dim": 8}
QWEN_SLIDING = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
OPT_LIKE: dict[str, Any] = dict(
    vocab_size=VOCABULARY, ffn_dim=48, max_position_embeddings=128, init_std=STD, dropout=0.0, attention_dropout=0.0
)

# name: (class of the configuration, its settings, attention implementation)
SHARED: dict[str, tuple[str, dict[str, Any], str]] = {
    "Llama": ("LlamaConfig", COMMON, "sdpa"),
    "Qwen2": ("Qwen2Config", COMMON, "sdpa"),
    "Qwen2, window in some layers": ("Qwen2Config", COMMON | QWEN_SLIDING, "sdpa"),
    "Qwen3": ("Qwen3Config", COMMON | {"head_dim": 8}, "sdpa"),
    "Qwen3, window in some layers": ("Qwen3Config", COMMON | QWEN_SLIDING | {"head_dim": 8}, "sdpa"),
    "Mistral": ("MistralConfig", COMMON | {"sliding_window": None}, "sdpa"),
    "Mistral, window": ("MistralConfig", COMMON | SLIDING, "sdpa"),
    "Ministral, window in some layers": ("MinistralConfig", COMMON | MIXED, "sdpa"),
    "Mixtral": ("MixtralConfig", COMMON | {"num_local_experts": 4}, "sdpa"),
    "Mixtral, window": ("MixtralConfig", COMMON | SLIDING | {"num_local_experts": 4}, "sdpa"),
    "Gemma": ("GemmaConfig", COMMON | {"head_dim": 8}, "sdpa"),
    "Gemma 2, window in some layers": ("Gemma2Config", COMMON | MIXED | {"query_pre_attn_scalar": 8}, "eager"),
    "Gemma 3, window in some layers": ("Gemma3TextConfig", COMMON | MIXED | {"query_pre_attn_scalar": 8}, "sdpa"),
    "Gemma 3 with images, window in some layers": (
        "Gemma3Config",
        dict(
            text_config=COMMON | MIXED | {"query_pre_attn_scalar": 8},
            vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
            | dict(image_size=28, patch_size=14),
            image_token_id=VOCABULARY - 1,
        ),
        "sdpa",
    ),
    "Gemma 3n, window in some layers": (
        "Gemma3nTextConfig",
        COMMON
        | MIXED
        | dict(vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8, laurel_rank=4)
        | dict(num_kv_shared_layers=0, intermediate_size=[48] * 3, activation_sparsity_pattern=[0.0] * 3),
        "sdpa",
    ),
    "Gemma 4, window in some layers": (
        "Gemma4TextConfig",
        COMMON
        | dict(sliding_window=WINDOW, layer_types=["sliding_attention", "sliding_attention", "full_attention"])
        | dict(head_dim=8, global_head_dim=8, vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8),
        "sdpa",
    ),
    "Phi": ("PhiConfig", COMMON, "sdpa"),
    "Phi-3": ("Phi3Config", COMMON | {"sliding_window": None}, "sdpa"),
    "Phi-3, window": ("Phi3Config", COMMON | SLIDING, "sdpa"),
    "OLMo": ("OlmoConfig", COMMON, "sdpa"),
    "OLMo-2": ("Olmo2Config", COMMON, "sdpa"),
    "OLMo-3, window in some layers": ("Olmo3Config", COMMON | SLIDING | {"layer_types": HYBRID}, "sdpa"),
    "OLMoE": ("OlmoeConfig", COMMON | {"num_experts": 4, "num_experts_per_tok": 2}, "sdpa"),
    "GPT-2": ("GPT2Config", GPT2_LIKE, "sdpa"),
    "GPT-J": ("GPTJConfig", GPT2_LIKE | {"rotary_dim": 4}, "eager"),
    "GPTBigCode": ("GPTBigCodeConfig", GPT2_LIKE, "sdpa"),
    "GPT-NeoX": ("GPTNeoXConfig", ALL_HEADS | {"hidden_dropout": 0.0, "attention_dropout": 0.0}, "sdpa"),
    "GPT-OSS, window in some layers": ("GptOssConfig", COMMON | MIXED | {"num_local_experts": 4}, "eager"),
    "OPT": (
        "OPTConfig",
        OPT_LIKE | dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=32),
        "sdpa",
    ),
    "XGLM": (
        "XGLMConfig",
        OPT_LIKE | dict(d_model=32, num_layers=3, attention_heads=4, activation_dropout=0.0),
        "eager",
    ),
    "Falcon": (
        "FalconConfig",
        dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, initializer_range=STD),
        "sdpa",
    ),
    "Granite": (
        "GraniteConfig",
        COMMON | dict(logits_scaling=0.5, residual_multiplier=0.9, attention_multiplier=0.4, embedding_multiplier=1.5),
        "sdpa",
    ),
    "Cohere": ("CohereConfig", COMMON | {"logit_scale": 0.8}, "sdpa"),
    "Cohere 2, window in some layers": ("Cohere2Config", COMMON | MIXED | {"logit_scale": 0.8}, "sdpa"),
    "StarCoder2": (
        "Starcoder2Config",
        COMMON | dict(sliding_window=None, residual_dropout=0.0, embedding_dropout=0.0),
        "sdpa",
    ),
    "StarCoder2, window": (
        "Starcoder2Config",
        COMMON | SLIDING | dict(residual_dropout=0.0, embedding_dropout=0.0),
        "sdpa",
    ),
    "StableLM": ("StableLmConfig", COMMON, "sdpa"),
    "SmolLM3": ("SmolLM3Config", COMMON | {"no_rope_layers": [1, 1, 0]}, "sdpa"),
    "GLM-4": ("Glm4Config", COMMON | {"head_dim": 8}, "sdpa"),
    "EXAONE 4, window in some layers": ("Exaone4Config", COMMON | MIXED, "sdpa"),
    "DeepSeek-V3": (
        "DeepseekV3Config",
        ALL_HEADS
        | dict(n_routed_experts=4, moe_intermediate_size=24, q_lora_rank=16, kv_lora_rank=8, qk_rope_head_dim=8)
        | dict(qk_nope_head_dim=8, v_head_dim=8, n_group=1, topk_group=1, num_experts_per_tok=2),
        "sdpa",
    ),
}

BLOOM_LIKE: dict[str, Any] = dict(vocab_size=VOCABULARY, initializer_range=STD)
LINEAR: dict[str, Any] = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
PADDED: dict[str, tuple[str, dict[str, Any], str]] = {
    "BLOOM": ("BloomConfig", BLOOM_LIKE | dict(hidden_size=32, n_layer=3, n_head=4), "eager"),
    "MPT": ("MptConfig", BLOOM_LIKE | dict(d_model=32, n_layers=3, n_heads=4), "eager"),
    "Falcon, ALiBi": (
        "FalconConfig",
        BLOOM_LIKE | dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, alibi=True),
        "sdpa",
    ),
    "GPT-Neo": (
        "GPTNeoConfig",
        BLOOM_LIKE
        | dict(hidden_size=32, num_layers=2, num_heads=4, window_size=WINDOW, max_position_embeddings=128)
        | dict(attention_types=[[["global", "local"], 1]]),
        "eager",
    ),
    "Llama 4": (
        "Llama4TextConfig",
        COMMON | dict(head_dim=8, intermediate_size_mlp=48, num_local_experts=2, attention_chunk_size=64),
        "sdpa",
    ),
    "Mamba": (
        "MambaConfig",
        dict(vocab_size=VOCABULARY, hidden_size=32, state_size=8, num_hidden_layers=2, initializer_range=STD),
        "eager",
    ),
    "RWKV": (
        "RwkvConfig",
        dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, context_length=128),
        "eager",
    ),
    "RecurrentGemma": (
        "RecurrentGemmaConfig",
        COMMON | dict(lru_width=32, attention_window_size=WINDOW, block_types=["recurrent", "attention"]),
        "sdpa",
    ),
    "LFM2": ("Lfm2Config", COMMON | {"layer_types": ["conv", "full_attention", "conv"]}, "sdpa"),
    "Falcon-H1": (
        "FalconH1Config",
        COMMON
        | dict(mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8)
        | dict(lm_head_multiplier=0.5),
        "sdpa",
    ),
    "Qwen3-Next": (
        "Qwen3NextConfig",
        COMMON
        | dict(head_dim=8, num_experts=4, moe_intermediate_size=24, shared_expert_intermediate_size=24)
        | dict(num_experts_per_tok=2, linear_num_value_heads=4)
        | dict(layer_types=["linear_attention", "full_attention", "linear_attention"])
        | LINEAR,
        "sdpa",
    ),
}


def build(name: str, lora: bool = False, **settings: Any) -> Any:
    """The model `name`, float32 in eval mode, always with the same weights; `settings` override its configuration."""
    config_class, own, attention = (SHARED | PADDED)[name]
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**(own | settings))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    if lora:
        model = add_adapter(model, PeftConfig(r=4))
        with torch.no_grad():
            for parameter_name, parameter in sorted(model.named_parameters()):
                if "lora_B" in parameter_name:  # zero at first, and then the gradient of A is zero, too
                    parameter.normal_(std=0.1)
    return attach(model.eval())


def some_groups() -> list[Group]:
    """K from 1 to 8, prompts and completions from one token on, and groups short enough to share a row."""
    draw = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (length,), generator=draw).tolist())

    return [
        Group(ids(6), (ids(5), ids(9))),
        Group(ids(1), (ids(2),)),
        Group(ids(4), tuple(ids(length) for length in (1, 4, 7, 2, 3, 1, 5, 2))),
        Group(ids(1), (ids(6), ids(1), ids(4))),
    ]


def alone(model: Any, groups: list[Group]) -> Tensor:
    """The truth: log-probs (N,) of every completion token, each sequence alone through the plain model."""
    found = []
    for group in groups:
        for completion in group.completions:
            logits = model(input_ids=torch.tensor([[*group.prompt, *completion]])).logits[0, len(group.prompt) - 1 : -1]
            logps = logits.log_softmax(-1)
            found.append(logps.gather(-1, torch.tensor(completion)[:, None])[:, 0])
    return torch.cat(found)
