"""Chat templates -> token ids: prefix, end of turn, BOS, and what is refused."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignment.data.templates import check_tokenizer, encode_pair, encode_prompt, token_texts, use_chat_template
from alignment.errors import UserError

USER = [{"role": "user", "content": "a b"}]
ANSWER = [{"role": "assistant", "content": "c d"}]
CHAT = (
    "{{ '<s> ' }}{% for m in messages %}{{ '<' + m.role + '> ' + m.content + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)


def tokenizer(template: str | None = CHAT, **special: str) -> PreTrainedTokenizerFast:
    """Splits on white space; one id a word; adds <s> in front of plain text, as Llama's does."""
    words = ["<unk>", "<s>", "<end>", "<user>", "<assistant>", "<system>", "a", "b", "c", "d", "ab", "\n"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    from tokenizers.processors import TemplateProcessing

    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, **{"eos_token": "<end>", "bos_token": "<s>", **special})
    made.chat_template = template
    return made


def words(tok: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return " ".join(tok.convert_ids_to_tokens(ids))


def test_prompt_is_a_prefix_end_of_turn_is_trained_and_bos_stands_once() -> None:
    tok = tokenizer()
    prompt, completion = encode_pair(tok, USER, ANSWER)
    assert words(tok, prompt) == "<s> <user> a b <end> <assistant>"
    assert words(tok, completion) == "c d <end>"
    assert prompt == encode_prompt(tok, USER)


def test_what_a_template_writes_behind_the_end_of_turn_is_not_trained() -> None:
    tok = tokenizer(CHAT.replace("' <end> '", "' <end> \\n '"))
    assert words(tok, encode_pair(tok, USER, ANSWER)[1]) == "c d <end>"


def test_an_end_is_added_where_the_template_has_none() -> None:
    tok = tokenizer(CHAT.replace("' <end> '", "' '"))
    assert words(tok, encode_pair(tok, USER, ANSWER)[1]) == "c d <end>"


def test_raw_text_has_one_bos_in_front_and_an_end_behind() -> None:
    tok = tokenizer(None)
    prompt, completion = encode_pair(tok, USER, ANSWER, "raw")
    assert words(tok, prompt) == "<s> a b" and words(tok, completion) == "c d <end>"


def test_raw_completion_keeps_its_leading_space() -> None:
    from alignment.config import ModelConfig
    from alignment.models.loading import load_tokenizer

    tok = load_tokenizer(ModelConfig(path="tiny"))
    prompt, completion = encode_pair(tok, USER, [{"role": "assistant", "content": " Yes"}], "raw")
    assert tok.decode(completion, skip_special_tokens=True) == " Yes"
    assert tok.decode(prompt) == "a b"


def test_a_template_that_rewrites_the_prompt_is_refused() -> None:
    unstable = CHAT.replace("m.content", "(m.content if loop.last else 'x')")
    with pytest.raises(UserError, match=r"not prefix-stable.*became"):
        check_tokenizer(tokenizer(unstable))


def test_a_template_that_refuses_a_role_is_named() -> None:
    picky = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHAT
    tok = tokenizer(picky)
    check_tokenizer(tok)
    with pytest.raises(UserError, match="refused the turns 'system user'.*no system turn"):
        encode_prompt(tok, [{"role": "system", "content": "a"}, *USER])


def test_missing_parts_of_a_tokenizer() -> None:
    with pytest.raises(UserError, match="no chat template.*data.template=raw"):
        check_tokenizer(tokenizer(None))
    check_tokenizer(tokenizer(None), "raw")
    with pytest.raises(UserError, match="no end-of-sequence token"):
        check_tokenizer(tokenizer(eos_token=None))
    padless = tokenizer()
    assert padless.pad_token_id is None
    check_tokenizer(padless)
    assert padless.pad_token_id == padless.eos_token_id
    with pytest.raises(UserError, match="unknown data.template 'caht'"):
        check_tokenizer(tokenizer(), "caht")


def test_a_template_file(tmp_path) -> None:
    tok = tokenizer(None)
    (tmp_path / "chat.jinja").write_text(CHAT)
    use_chat_template(tok, str(tmp_path / "chat.jinja"))
    check_tokenizer(tok)
    with pytest.raises(UserError, match="no such file"):
        use_chat_template(tok, str(tmp_path / "none.jinja"))


class Pieces:
    """Decodes as SentencePiece does, which takes the space off the first word; the bytes of é are two ids."""

    words = (b" The", b" sum", b"s", b"\xc3", b"\xa9")

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.words[i] for i in ids).decode("utf-8", errors="replace").removeprefix(" ")


def test_texts_of_tokens_join_to_the_whole_text() -> None:
    assert token_texts(Pieces(), [0, 1, 2, 0, 3, 4, 1]) == [
        ("The", 1), (" sum", 1), ("s", 1), (" The", 1), ("é", 2), (" sum", 1),
    ]  # fmt: skip
    assert token_texts(Pieces(), [0, 3]) == [("The", 1), ("\ufffd", 1)]  # cut within a character
    assert token_texts(Pieces(), []) == []
