"""A judge in this process: P by hand on a model whose logits are set, against plain logits, and end to end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback.build import build_feedback
from alignment.feedback.judges import Critique, PairwiseJudge, PointwiseScore
from alignment.feedback.local import among, encode_conversation, word_ids
from alignment.models.loading import resolve
from tests.feedback.scripted import PROMPT

PAIRS = [("A finch.", "A wren, I think."), ("Bird.", "A very long answer about birds. " * 9), ("x", "x")]
PROMPTS = [PROMPT] * len(PAIRS)
FIRST, SECOND = [a for a, _ in PAIRS], [b for _, b in PAIRS]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("tiny"))


@pytest.fixture(scope="module")
def rigged(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> str:
    """A model whose next token does not depend on the text: logit 2 for " A", 1 for " B", 0.5 for " C", else 0.

    And 1 for " 1", 3 for " 10", the two ends of the grades.
    """
    model = AutoModelForCausalLM.from_pretrained(resolve("tiny"), dtype=torch.float32, tie_word_embeddings=False)
    width = model.config.hidden_size
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(1.0)  # every layer adds nothing to it, so the normed state is all ones
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        for word, logit in {"A": 2.0, "B": 1.0, "C": 0.5, "1": 1.0, "10": 3.0}.items():
            [(token,)] = word_ids(tokenizer, "Verdict:", [word])
            model.lm_head.weight[token] = logit / width
    folder = tmp_path_factory.mktemp("rigged")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_p_by_hand(rigged: str) -> None:
    one_order = PairwiseJudge(path=rigged, both_orders=False)
    p = (math.e**2 + math.e**0.5 / 2) / (math.e**2 + math.e**1 + math.e**0.5)  # the tie is shared: 0.6981
    assert one_order.prefer(PROMPTS, FIRST, SECOND) == pytest.approx([p] * 3, abs=1e-5)
    # The model looks at the place alone, so both orders together find a tie: (p + 1 - p) / 2.
    both = PairwiseJudge(path=rigged)
    assert both.prefer(PROMPTS, FIRST, SECOND) == pytest.approx([0.5] * 3, abs=1e-6)
    assert both.counts == {"requests": 6, "orders disagree": 3}


def test_without_a_tie_word_by_hand(rigged: str, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text('user: "{prompt} {first} {second} {line}"\nverdicts: {A: first, B: second}\n')
    judge = PairwiseJudge(path=rigged, template=str(file), both_orders=False)
    assert judge.prefer(PROMPTS[:1], FIRST[:1], SECOND[:1]) == pytest.approx([1 / (1 + math.exp(-1.0))], abs=1e-5)


def test_the_expected_grade_by_hand(rigged: str) -> None:
    # Grades 2 to 9 have logit 0: (1·e + (2 + … + 9) + 10·e³) / (e + 8 + e³).
    expected = (math.e + 44 + 10 * math.e**3) / (math.e + 8 + math.e**3)
    assert PointwiseScore(path=rigged).score(PROMPTS, FIRST) == pytest.approx([expected] * 3, abs=1e-4)


def test_a_word_that_begins_another_by_hand() -> None:
    # "1" as a beginning has 0.5, of which 0.2 goes on to "10"; "2" has 0.3: 0.3, 0.3 and 0.2 of 0.8.
    logps = [math.log(0.5), math.log(0.3), math.log(0.2)]
    assert among(logps, [(7,), (8,), (7, 9)]) == pytest.approx([3 / 8, 3 / 8, 2 / 8])
    # "100" is taken from "10", and "10" with it from "1".
    logps = [math.log(0.5), math.log(0.3), math.log(0.1)]
    assert among(logps, [(7,), (7, 9), (7, 9, 9)]) == pytest.approx([0.2 / 0.5, 0.2 / 0.5, 0.1 / 0.5])
    assert among([-1e4, -1e4 + math.log(3)], [(1,), (2,)]) == pytest.approx([0.25, 0.75])  # far from overflow


@settings(deadline=None)
@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6), st.floats(-30, 30))
def test_words_that_exclude_each_other_share_one(logps: list[float], shift: float) -> None:
    words = [(token,) for token in range(len(logps))]
    found = among(logps, words)
    assert sum(found) == pytest.approx(1.0)
    assert found == pytest.approx(torch.tensor(logps, dtype=torch.float64).softmax(0).tolist())
    assert among([logp + shift for logp in logps], words) == pytest.approx(found)


def test_words_of_several_tokens_against_plain_logits(tokenizer, tmp_path: Path) -> None:
    """P from the engine equals that from the logits of each whole sequence, one after the other."""
    file = tmp_path / "words.yaml"
    words = {"YES": 1, "perhaps": 0.25, "nobody": 0}
    file.write_text(f'user: "{{prompt}} {{first}} {{second}} {{line}}"\nverdicts: {words}\n')
    judge = PairwiseJudge(path="tiny", template=str(file), both_orders=False, token_budget=300)
    found = judge.prefer(PROMPTS, FIRST, SECOND)
    model = AutoModelForCausalLM.from_pretrained(resolve("tiny"), dtype=torch.float32).eval()
    assert max(len(ids) for ids in word_ids(tokenizer, "Verdict-0:", list(words))) > 1
    for p, first, second in zip(found, FIRST, SECOND, strict=True):
        request = judge._template.fill({"prompt": PROMPT, "first": first, "second": second})
        prompt = encode_conversation(tokenizer, request.messages, request.line)
        logps = []
        for ids in word_ids(tokenizer, request.line, list(words)):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
            logps.append(sum(logits[len(prompt) + i - 1, token].item() for i, token in enumerate(ids)))
        shares = torch.tensor(logps, dtype=torch.float64).softmax(0).tolist()
        assert p == pytest.approx(sum(s * v for s, v in zip(shares, words.values(), strict=True)), abs=1e-5)


def test_words_are_encoded_as_they_stand_behind_the_line(tokenizer) -> None:
    line = "Verdict-0123abcd:"
    for word in ("A", "YES", "10"):
        [ids] = word_ids(tokenizer, line, [word])
        assert tokenizer.decode(ids) == f" {word}"
        assert tokenizer(f"{line} {word}")["input_ids"][-len(ids) :] == list(ids)


def test_rows_do_not_depend_on_each_other() -> None:
    judge = PairwiseJudge(path="tiny")
    whole = judge.prefer(PROMPTS, FIRST, SECOND)
    apart = [judge.prefer([p], [a], [b])[0] for p, a, b in zip(PROMPTS, FIRST, SECOND, strict=True)]
    assert apart == pytest.approx(whole, abs=1e-6)
    assert judge.prefer(PROMPTS[::-1], SECOND[::-1], FIRST[::-1]) == pytest.approx(
        [1 - p for p in whole[::-1]], abs=1e-6
    )
    assert whole[2] == pytest.approx(0.5, abs=1e-6)  # the same text twice


def test_a_prompt_over_the_window_has_no_verdict() -> None:
    long = "word " * 2000
    judge = PairwiseJudge(path="tiny")
    found = judge.prefer(PROMPTS[:2], ["A finch.", long], ["A wren."] * 2)
    assert [math.isnan(p) for p in found] == [False, True]
    assert judge.counts["no verdict: prompt too long"] == 2
    assert Critique(path="tiny", max_tokens=8).review([PROMPT], [long])[0].satisfactory is None


def test_written_verdicts_of_a_model_that_writes_none() -> None:
    """The tiny model writes no verdict line: by text that is no verdict, counted; a review behind which the
    probabilities are read is one only where it came to its end."""
    judge = PairwiseJudge(path="tiny", read="text", max_tokens=8)
    assert math.isnan(judge.prefer([PROMPT], ["A finch."], ["A wren."])[0])
    assert sum(n for reason, n in judge.counts.items() if reason.startswith("no verdict")) == 2
    critic = Critique(path="tiny", max_tokens=4)
    assert critic.review([PROMPT], ["A finch."])[0].text is None
    assert critic.counts["no verdict: cut off"] == 1


def test_a_review_and_the_verdict_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignment.feedback.verdicts import Reply

    critic = Critique(path="tiny")
    leads: list[str] = []

    def probabilities(conversations: list[list[Message]], given: list[str], words: list[str]) -> list[list[float]]:
        leads.extend(given)
        assert words == ["yes", "no"]
        return [[0.2, 0.8]] * len(given)

    monkeypatch.setattr(critic._chat, "generate", lambda asked: [Reply("Too short.\nNo reasons.")])
    monkeypatch.setattr(critic._chat, "word_probabilities", probabilities)
    [judgment] = critic.review([PROMPT], ["A finch."])
    assert (judgment.text, judgment.satisfactory, judgment.annotator) == ("Too short.\nNo reasons.", False, "tiny")
    assert leads[0].startswith("Too short.\nNo reasons.\nSatisfactory-")


def test_built_by_name_and_what_is_refused() -> None:
    judge = build_feedback({"name": "judge_local", "path": "tiny", "both_orders": False})
    assert 0.0 < judge.prefer([PROMPT], ["A finch."], ["A wren."])[0] < 1.0
    for settings_, message in (
        ({"path": None}, r"needs a model: path=…"),
        ({"path": "tiny", "base_url": "http://localhost:1", "model": "m"}, r"needs a model: .*not both"),
        ({"path": "tinny"}, r"unknown model 'tinny': did you mean tiny"),
        ({"path": "tiny", "dtype": "float8"}, r"dtype=float8: did you mean"),
        ({"path": "tiny", "read": "logits"}, r"read=logits: known: auto, probabilities, text"),
        ({"path": "tiny", "temperature": -1}, r"temperature=-1: a number of at least 0"),
        ({"path": "tiny", "temperature": None}, r"temperature=None: a number"),
        ({"path": "tiny", "both_orders": "yes"}, r"both_orders=yes: true or false"),
        ({"path": "tiny", "token_budget": 0}, r"token_budget=0: a whole number of at least 1"),
        ({"path": "tiny", "tempature": 0}, r"no such setting; did you mean temperature"),
    ):
        with pytest.raises(UserError, match=message):
            build_feedback({"name": "judge_local", **settings_})
