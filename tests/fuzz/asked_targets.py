"""Templates, and what is read out of a judge model's replies."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from alignment.data.improvement_prompts import load_improvement_template
from alignment.data.judgment_prompts import load_judgment_template
from alignment.data.refine_prompts import load_refine_template
from alignment.data.slot_templates import quoted
from alignment.data.templates import encode_pair, encode_prompt, token_texts
from alignment.feedback.build import build_feedback
from alignment.feedback.checklist import Checklist
from alignment.feedback.judges import Critique, PairwiseJudge, PointwiseScore
from alignment.feedback.served import _reply, _tokens, _value
from alignment.feedback.templates import load_template
from alignment.feedback.wide_deep import WideDeep
from alignment.launch.assets import assets_root
from tests.feedback.scripted import Scripted
from tests.fuzz.harness import Target
from tests.fuzz.hostile import bomb, json_values, mutated, mutated_bytes, texts, values

_DATA = Path(load_judgment_template.__code__.co_filename).parent
SLOT_FILES = [
    file.read_bytes()
    for name in ("judgment", "improvement", "refine")
    for file in sorted(_DATA.glob(f"{name}_templates/*.yaml"))
]
JUDGE_FILES = [file.read_bytes() for file in sorted((assets_root() / "configs" / "judge").glob("*.yaml"))]
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool", ""]), "content": texts})
prompts = st.lists(turns, min_size=1, max_size=3)
replies = st.lists(texts, max_size=5).map("\n".join)


@functools.cache
def _tokenizer() -> Any:
    from alignment.config import ModelConfig
    from alignment.models.loading import load_tokenizer

    return load_tokenizer(ModelConfig(path="tiny"))


def _slots(value: tuple[bytes, Any, str, str], folder: Path) -> object:
    content, prompt, one, other = value
    Path("mine.yaml").write_bytes(content)
    found: list[Any] = []
    for load in (load_judgment_template, load_improvement_template, load_refine_template):
        try:
            template: Any = load("mine.yaml")
        except Exception as error:
            found.append(error)
            continue
        for name in ("asked", "with_judgment", "to_improve", "to_judge", "to_refine"):
            if method := getattr(template, name, None):
                texts_of = [one, other][: method.__code__.co_argcount - 2]
                method(prompt, *texts_of)
    if len(found) == 3:
        raise next((error for error in found if not _is_own(error)), found[0])
    return found


def _is_own(error: Exception) -> bool:
    from alignment.errors import UserError

    return isinstance(error, UserError)


def _judge_template(value: tuple[bytes, Any, str], folder: Path) -> object:
    content, prompt, text = value
    Path("mine.yaml").write_bytes(content)
    template = load_template("mine.yaml", ("prompt", "answer"), ("reference",), verdicts=False)
    return template.fill({"prompt": prompt, "answer": text, "reference": text, "first": text, "second": text})


def _sound(turns: Any) -> Any:
    """Without lone surrogates: rows that hold any do not come as far as a tokenizer."""
    return [{**turn, "content": turn["content"].encode("utf-8", "replace").decode()} for turn in turns]


def _chat(value: tuple[Any, Any], folder: Path) -> object:
    prompt, completion = (_sound(turns) for turns in value)
    tokenizer = _tokenizer()
    text = quoted(completion[0]["content"], tokenizer, 8, "(cut)")
    ids = encode_pair(tokenizer, prompt, completion)[1]
    return text, encode_prompt(tokenizer, prompt, "raw"), token_texts(tokenizer, ids)


def _jinja(value: tuple[bytes, Any], folder: Path) -> object:
    import copy

    from alignment.data.templates import check_tokenizer, use_chat_template

    content, prompt = value
    Path("mine.jinja").write_bytes(content)
    tokenizer = copy.copy(_tokenizer())
    use_chat_template(tokenizer, "mine.jinja")
    check_tokenizer(tokenizer)
    return encode_prompt(tokenizer, _sound(prompt))


def _asked(ask: Callable[[Scripted, str, str], Any]) -> Callable[[Any, Path], object]:
    def check(value: tuple[list[str], str, str], folder: Path) -> object:
        said, first, second = value
        waiting = iter(said * 50)
        return ask(Scripted(lambda conversation: next(waiting)), first, second)

    return check


def _prefer(judge: Any, first: str, second: str) -> object:
    return judge.prefer([[{"role": "user", "content": "Why?"}]], [first], [second])


def _score(judge: Any, first: str, second: str) -> object:
    ask = [{"role": "user", "content": second}]
    return judge.review([ask], [first]) if hasattr(judge, "review") else judge.score([ask], [first])


RULES = [
    *({"name": name} for name in ("plain_words", "length", "json_valid", "repetition", "exact_match", "plain_critic")),
    *({"name": name} for name in ("numeric_match", "rouge", "bleu", "readability", "sentiment", "profanity")),
    {"name": "regex", "pattern": "(?i)a+b"},
]


def _rule(value: tuple[Any, str, str], folder: Path) -> object:
    settings, text, reference = value
    rule = build_feedback(settings)
    context = [{"reference": reference}]
    ask = [[{"role": "user", "content": "Why?"}]]
    if hasattr(rule, "score"):
        return rule.score(ask, [text], context)
    return rule.review(ask, [text], context)


def _served(value: Any, folder: Path) -> object:
    """The body of an endpoint's answer, as its client hands it over: whatever JSON it was."""
    from openai._models import construct_type
    from openai.types.chat import ChatCompletion

    answer = construct_type(type_=ChatCompletion, value=json.loads(json.dumps(value)))
    found = _value(answer)
    if found is None:
        return None
    _tokens(answer, {"messages": [{"content": "x"}]}, found)
    return _reply(json.loads(json.dumps(found)))  # as the cache keeps it


BODY = {
    "id": "1",
    "object": "chat.completion",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "A", "refusal": None}, "finish_reason": "stop"}
    ],
    "usage": {"total_tokens": 7, "prompt_tokens": 3, "completion_tokens": 4},
}
pair_of_replies = st.tuples(st.lists(replies, min_size=1, max_size=3), texts, texts)
JINJA = [
    b"{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    b"{% if add_generation_prompt %}assistant: {% endif %}"
]
JINJA += [
    b"{{ messages.__class__.__mro__ }}",
    b"{% for i in range(10**12) %}x{% endfor %}",
    b"{{ raise_exception('no') }}",
]
JINJA += [
    b"{{ ''.__class__.__base__.__subclasses__() }}",
    b"{{ 'x' * 10**5 }}",
    b"{% include '/etc/passwd' %}",
    b"{{ messages[9].content }}",
]
TARGETS = (
    Target(
        "slot templates", "templates", st.tuples(mutated_bytes([*SLOT_FILES, bomb()]), prompts, texts, texts), _slots
    ),
    Target(
        "slot templates: any YAML",
        "templates",
        st.tuples(values.map(lambda v: _yaml(v)), prompts, texts, texts),
        _slots,
    ),
    Target(
        "judge templates",
        "templates",
        st.tuples(mutated_bytes([*JUDGE_FILES, bomb()]), prompts, texts),
        _judge_template,
    ),
    Target(
        "judge templates: any mapping",
        "templates",
        st.tuples(mutated([yaml.safe_load(f) for f in JUDGE_FILES]).map(lambda v: _yaml(v)), prompts, texts),
        _judge_template,
    ),
    Target("chat template: any turns", "templates", st.tuples(prompts, prompts), _chat),
    Target("chat template: any Jinja", "templates", st.tuples(mutated_bytes(JINJA), prompts), _jinja),
    Target(
        "replies: pairwise",
        "judges",
        pair_of_replies,
        _asked(lambda chat, a, b: _prefer(PairwiseJudge(chat=chat), a, b)),
    ),
    Target(
        "replies: score", "judges", pair_of_replies, _asked(lambda chat, a, b: _score(PointwiseScore(chat=chat), a, b))
    ),
    Target(
        "replies: critique", "judges", pair_of_replies, _asked(lambda chat, a, b: _score(Critique(chat=chat), a, b))
    ),
    Target(
        "replies: checklist", "judges", pair_of_replies, _asked(lambda chat, a, b: _prefer(Checklist(chat=chat), a, b))
    ),
    Target(
        "replies: perspectives",
        "judges",
        pair_of_replies,
        _asked(lambda chat, a, b: _prefer(WideDeep(chat=chat), a, b)),
    ),
    Target("rules", "judges", st.tuples(st.sampled_from(RULES), texts, texts), _rule),
    Target("served answers", "judges", mutated([BODY]) | json_values(), _served),
)


def _yaml(value: Any) -> bytes:
    """YAML of `value`; of what YAML cannot write, JSON."""
    try:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, RecursionError, UnicodeError, ValueError):
        return json.dumps(value).encode()
