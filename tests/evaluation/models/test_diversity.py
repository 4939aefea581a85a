"""Diversity as models read it: embeddings and NLI, kept by content, over sets of one size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from alignment.errors import UserError
from alignment.evaluation.models.cells import ratio_cell, set_cell
from alignment.evaluation.models.diversity import Reader, Readings, contradictions_of, diversity_cells, vectors_of
from alignment.evaluation.models.run import Asking, evaluate
from alignment.models.embeddings import Embedder
from alignment.models.entailment import Entailment, signs_of
from alignment.resumable import OneProcess
from alignment.rollouts.sample_file import Sampling

from .made import answers, write_rows

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "yes", "no", "maybe", "it", "rains", "never", "always"]
ALONE = OneProcess()


def direction(texts: Sequence[str]) -> np.ndarray:
    """East for a text that begins with e, north for n, none for an empty one."""
    return np.array([[float(text[:1] == "e"), float(text[:1] == "n")] for text in texts], dtype=np.float32)


def contradiction(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [-1.0 if first == second else 0.5 if len(first) < len(second) else 0.25 for first, second in pairs]


def reader(call: Any) -> Reader:
    return Reader("tiny", lambda spec: call)


def test_both_columns_by_hand_over_sets_of_one_size(tmp_path: Path) -> None:
    models = [
        answers("one", ["e", "n", "e"], ["e1", "e22"], ["e", ""], ["n", "n"]),
        answers("two", ["e", "e"], ["n1", "n22"], ["e", "n"], ["e", "n", "n"]),
    ]
    readings = Readings()
    for one in models:
        readings.vectors[one.of.name] = vectors_of(one, reader(direction), tmp_path, ALONE)
        readings.contradictions |= contradictions_of(one, reader(contradiction), tmp_path, ALONE)
    cells, notes = diversity_cells(models, readings, "one")
    found = {(cell.metric, cell.model): cell for cell in cells}
    apart = found["embedding distance, per input", "one"]
    # Of the first two answers: 1 where they point elsewhere. The third prompt has an answer without a direction.
    assert (apart.value, apart.n) == (pytest.approx(1 / 3), 3)
    other = found["embedding distance, per input", "two"]
    assert other.value == pytest.approx(1 / 3) and other.difference == pytest.approx(0) and other.p == 1
    # First answers of one: e, e1, n; second ones: n, e22, n: 2 of 3 pairs differ. Of two: e, n1, e and e, n22, n.
    assert found["embedding distance, across inputs", "one"].value == pytest.approx(2 / 3)
    assert found["embedding distance, across inputs", "two"].difference == pytest.approx(0)
    assert notes == ["Embedding distance: prompts left out, as some answer to them is empty: 1."]
    said = found["NLI, per input", "one"]  # (0.25 + 0.25) / 2, (0.5 + 0.25) / 2, the same with an empty text, -1
    assert said.value == pytest.approx((0.25 + 0.375 + 0.375 - 1) / 4) and said.n == 4
    assert ("NLI, across inputs", "one") not in found and said.low < said.value < said.high


def test_nothing_is_read_twice(tmp_path: Path) -> None:
    one = answers("one", ["e", "n", "e n"], [], ["n", "n"])
    vectors = vectors_of(one, reader(direction), tmp_path, ALONE)
    said = contradictions_of(one, reader(contradiction), tmp_path, ALONE)
    assert [row.shape for row in vectors] == [(3, 2), (0, 0), (2, 2)] and vectors[0].tolist()[1] == [0, 1]
    assert said == {
        pair: contradiction([pair])[0] for row in one.said for pair in permutations([s.text for s in row], 2)
    }
    assert all((a == b).all() for a, b in zip(vectors, vectors_of(one, reader(None), tmp_path, ALONE), strict=True))
    assert contradictions_of(one, reader(None), tmp_path, ALONE) == said
    another = reader(None)
    another.key = ["other weights"]
    with pytest.raises(TypeError):  # it has read nothing yet
        vectors_of(one, another, tmp_path, ALONE)


def test_one_answer_has_no_diversity() -> None:
    cells, notes = diversity_cells([answers("one", ["e", "n"], ["e"])], Readings(), "one")
    assert not cells and "two answers or more" in notes[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a head for NLI in nli/, the same without one in body/."""
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    labels = {0: "ENTAILMENT", 1: "neutral", 2: "Contradiction"}
    config = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=16, initializer_range=1.0, id2label=labels, **sizes
    )
    made = tmp_path_factory.mktemp("bert")
    for name, kind in (("nli", BertForSequenceClassification), ("body", BertModel)):
        kind(config).save_pretrained(made / name)
        fast.save_pretrained(made / name)
    return made


def test_the_likeliest_label_is_what_counts(folder: Path) -> None:
    model = Entailment(str(folder / "nli"), batch_size=2)
    assert model.signs == [-1, 0, 1] == signs_of(str(folder / "nli"))
    texts = ["yes", "no it rains", "maybe", "it never rains always", "yes " * 40]  # the last one is cut
    asked = list(permutations(texts, 2))
    found = model(asked)
    for pair, score in zip(asked[:8], found, strict=False):  # none of these is cut, and each stands alone
        batch = model.tokenizer(*pair, truncation=True, max_length=16, return_tensors="pt")
        p = model.model(**batch).logits.softmax(-1)[0].tolist()
        assert score == pytest.approx(max(p) * model.signs[p.index(max(p))], abs=1e-5)
    assert {round(abs(score), 3) for score in found} - {0} and len(found) == 20


def test_an_encoder_embeds_with_its_own_tokens_around_a_text(folder: Path) -> None:
    embedder = Embedder(str(folder / "body"), batch_size=2)
    vectors = embedder(["it rains", "", "no", "yes " * 40])
    ids = torch.tensor([[2, WORDS.index("it"), WORDS.index("rains"), 3]])
    with torch.no_grad():
        states = embedder.body(input_ids=ids).last_hidden_state[0]
    np.testing.assert_allclose(vectors[0], states.mean(0).numpy(), atol=1e-5)
    assert not vectors[1].any() and vectors[3].any()


def test_what_is_no_such_model_is_refused_before_anything_is_sampled(folder: Path, tmp_path: Path) -> None:
    asked = write_rows(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    for asking, n, says in (
        (Asking(nli=str(folder / "body")), 2, "is a BertModel: a …ForSequenceClassification"),
        (Asking(nli="tiny"), 2, "is a LlamaForCausalLM"),
        (Asking(embedder="tinny"), 2, "did you mean tiny"),
        (Asking(embedder="tiny"), 1, "--embedder compares several answers to a prompt, and there is one\nMend: -n 2"),
        (Asking(nli="tiny"), 1, "--nli compares several"),
    ):
        with pytest.raises(UserError, match=says):
            evaluate(["tiny"], asked, tmp_path / "out", asking, Sampling(n=n))
    assert not (tmp_path / "out").exists()
    other = BertConfig.from_pretrained(folder / "nli", id2label={0: "LABEL_0", 1: "not_entailment", 2: "entailment"})
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="labels are LABEL_0, not_entailment, entailment, of which not one begins with"):
        signs_of(str(tmp_path / "other"))


def test_the_command_s_columns(folder: Path, tmp_path: Path) -> None:
    rows = {"a": ["it rains", "it never rains"], "b": ["yes", "no"], "c": ["maybe", "maybe"]}
    given = [{"prompt": prompt, "completion": text} for prompt, texts in rows.items() for text in texts]
    file = write_rows(tmp_path / "one.jsonl", given)
    asking = Asking(embedder=str(folder / "body"), nli=str(folder / "nli"))
    found = evaluate([file], file, tmp_path / "out", asking, Sampling(n=2))
    vectors = [Embedder(str(folder / "body"))(texts).astype(float) for texts in rows.values()]
    units = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in vectors]
    apart = found.cell("embedding distance, per input", "one").value
    assert apart == pytest.approx(np.mean([1 - first @ second for first, second in units]), abs=1e-6) and apart > 0
    pairs = [pair for texts in rows.values() for pair in permutations(texts, 2)]
    said = Entailment(str(folder / "nli"))(pairs)
    assert found.cell("NLI, per input", "one").value == pytest.approx(np.mean(said), abs=1e-6)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| model | embedding distance per input | embedding distance across inputs | NLI per input |" in table
    assert f"mean-pooled hidden states of {folder}" in table.replace("\\", "")


def test_differences_of_whole_sets_and_of_ratios() -> None:
    where = ("answers", "", "m", "x")
    own, others = [1.0, 2.0, 4.0, 3.0], [1.0, 1.0, 2.0, 2.0]
    cell = set_cell(where, own, others, lambda items: float(np.mean(items)))
    apart = np.subtract(own, others)
    se = apart.std(ddof=1) / 2  # the jackknife of a mean is the textbook's
    reach = 3.182446 * se  # t of 3 degrees of freedom
    assert cell.value == 2.5 and cell.difference == pytest.approx(1.0)
    assert (cell.difference_low, cell.difference_high) == pytest.approx((1 - reach, 1 + reach))
    assert cell.p == pytest.approx(0.0917, abs=1e-3)  # the paired t-test's, t = 1 / se
    same = set_cell(where, own, own, lambda items: float(np.mean(items)))
    assert (same.difference, same.p) == (0, 1)
    ratio = ratio_cell(
        where, ([2.0, 4.0, float("nan")], [1.0, 1.0, 1.0]), ([1.0, 1.0, 1.0], [1.0, 3.0, 0.0]), shown=np.exp
    )
    assert ratio.value == pytest.approx(np.exp(3)) and ratio.n == 2
    assert ratio.difference == pytest.approx(np.exp(3) - np.exp(0.5))
    assert ratio.difference_low <= ratio.difference <= ratio.difference_high
