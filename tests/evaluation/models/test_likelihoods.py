"""Log-probs of sampled answers: KL and entropy against closed forms, and held-out text against the plain model."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from alignment.errors import UserError
from alignment.evaluation.models import likelihoods as module
from alignment.evaluation.models.answers import Answers, Said
from alignment.evaluation.models.contestants import Contestant
from alignment.evaluation.models.likelihoods import answer_logps, held_out_text, text_pieces
from alignment.evaluation.models.measures import Likelihoods, answer_cells
from alignment.evaluation.models.prompts import PromptSet
from alignment.evaluation.models.weights import Weights
from alignment.models.logps import attach
from alignment.rollouts.sampler import PolicySampler
from alignment.rollouts.sampling import SamplingSettings
from tests.evaluation.models.made import prompts
from tests.rollouts.policies import END, Numbers

VOCABULARY, LONGEST = 6, 3
ASKED = [[3, 4], [5, 1, 0]]  # the token ids of two prompts


class Small:
    """A random model over six tokens, as `Weights` are used."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=VOCABULARY, **sizes, initializer_range=0.6, eos_token_id=END, bos_token_id=0)
        self.model = attach(LlamaForCausalLM(config).eval())
        self.tokenizer: Any = Numbers()
        self.tokenizer.pad_token_id = 0
        self.spec, self.key = f"small{seed}", [seed]
        self.scorer = self.model, "shared"

    def encode(self, prompt: Any) -> list[int]:
        return ASKED[int(prompt[-1]["content"])]

    def sequences(self, prompt: list[int], temperature: float) -> dict[tuple[int, ...], float]:
        """log p of every completion of at most LONGEST tokens, by the plain model."""
        rows = list(itertools.product(range(VOCABULARY), repeat=LONGEST))
        with torch.no_grad():
            logits = self.model(torch.tensor([[*prompt, *ids] for ids in rows])).logits[:, len(prompt) - 1 : -1]
        logps = (logits.double() / temperature).log_softmax(-1)
        found: dict[tuple[int, ...], float] = {}
        for row, ids in zip(logps, rows, strict=True):
            cut = ids[: ids.index(END) + 1] if END in ids else ids
            found[cut] = float(sum(row[at, token] for at, token in enumerate(cut)))
        return found


def sampled(model: Small, n: int, temperature: float) -> Answers:
    sampler = PolicySampler(model.model, model.tokenizer, SamplingSettings(LONGEST, temperature, batch_size=512))
    rollouts = sampler.sample(ASKED, k=n, seed=3)
    said = [[Said(r.text, r.completion, r.finished) for r in rollouts[at * n : (at + 1) * n]] for at in range(2)]
    return Answers(Contestant("policy", "policy"), said, "", f"{n} {temperature}")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_kl_and_entropy_are_those_of_the_enumerated_policies(temperature: float, tmp_path: Path) -> None:
    policy, reference = Small(0), Small(1)
    asked: PromptSet = prompts("0", "1")
    answers = sampled(policy, 400, temperature)
    own, other = (answer_logps(answers, asked, each, temperature, tmp_path) for each in (policy, reference))  # type: ignore[arg-type]
    kl, nats, tokens = [], [], []
    for at, prompt in enumerate(ASKED):
        p, q = policy.sequences(prompt, temperature), reference.sequences(prompt, temperature)
        assert sum(map(math.exp, p.values())) == pytest.approx(1)
        for said, found, under in zip(answers.said[at], own[at], other[at], strict=True):
            assert found == pytest.approx(p[said.ids or ()], abs=2e-5)
            assert under == pytest.approx(q[said.ids or ()], abs=2e-5)
        kl.append(sum(math.exp(p[ids]) * (p[ids] - q[ids]) for ids in p))
        nats.append(-sum(math.exp(value) * value for value in p.values()))
        tokens.append(sum(math.exp(value) * len(ids) for ids, value in p.items()))
    cells = answer_cells([answers], {"policy": Likelihoods(own, other)}, "policy")
    found = {cell.metric: cell for cell in cells}
    gaps = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(own, other, strict=True)]
    error = math.sqrt(sum(torch.tensor(row).var().item() / len(row) for row in gaps)) / 2
    assert abs(found["kl"].value - sum(kl) / 2) < 4 * error and sum(kl) / 2 > 10 * error
    assert found["entropy"].value == pytest.approx(sum(nats) / sum(tokens), rel=0.05)
    assert found["kl"].counts["se"] == pytest.approx(abs(sum(gaps[0]) - sum(gaps[1])) / 400 / 2)  # of two prompts


def test_log_probs_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, asked = Small(0), prompts("0", "1")
    answers = sampled(policy, 3, 1.0)
    answers.said[1] = []  # a prompt without an answer
    wanted = answer_logps(answers, asked, policy, 1.0, tmp_path)  # type: ignore[arg-type]
    assert [len(row) for row in wanted] == [3, 0]
    monkeypatch.setattr(module, "completion_sums", None)
    assert answer_logps(answers, asked, policy, 1.0, tmp_path) == wanted  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        answer_logps(answers, asked, policy, 0.5, tmp_path)  # type: ignore[arg-type]


def test_held_out_text_costs_what_the_plain_model_says(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("Rain falls.\n\n" + "The sun is a star, and it is warm. " * 40 + "\n\nÄpfel und Birnen.", "utf-8")
    tiny = Weights("tiny", "float32", "chat")
    found = held_out_text(file, tiny, tmp_path)
    pieces = text_pieces(file.read_text("utf-8"))
    assert sum(found.bytes) == len(file.read_bytes()) and len(pieces) == len(found.nats) == 2
    for piece, nats, tokens in zip(pieces, found.nats, found.tokens, strict=True):
        ids = tiny.tokenizer(piece, add_special_tokens=False)["input_ids"]
        row = torch.tensor([[tiny.tokenizer.eos_token_id, *ids]])
        with torch.no_grad():
            loss = tiny.model(input_ids=row, labels=row).loss
        assert tokens == len(ids) and nats / tokens == pytest.approx(float(loss), rel=1e-4)


@given(st.text(alphabet="ab \n.äé€😀", max_size=60), st.integers(5, 20))
@settings(max_examples=60, deadline=None)
def test_pieces_are_the_text(text: str, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_BYTES", most)
        pieces = text_pieces(text)
    assert all(piece.strip() and len(piece.encode()) <= most for piece in pieces)
    assert [char for char in "".join(pieces) if not char.isspace()] == [char for char in text if not char.isspace()]


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, says in (
        ("empty.txt", "no text in it"),
        ("latin.txt", "not text in UTF-8"),
        ("no.txt", "cannot be read"),
    ):
        with pytest.raises(UserError, match=says):
            module.read_text(tmp_path / name)
