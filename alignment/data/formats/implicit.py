"""Finding the prompt that two whole texts or two whole transcripts share."""

from __future__ import annotations

import unicodedata

from alignment.data.example import Message
from alignment.data.formats.common import RowError

_JOINERS = {"\u200c", "\u200d", "\ufe0e", "\ufe0f"}


def split_transcripts(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], ...]:
    """(prompt, chosen completion, rejected completion): the turns in common, and what follows them in each.

    A completion may be several turns where the transcripts part before their last turn.

    Raises:
        RowError: nothing in common, nothing different, or they part at a turn that is not the assistant's.
    """
    if chosen == rejected:
        raise RowError("chosen and rejected are the same transcript", "identical")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0:
        raise RowError("chosen and rejected share no turn, and there is no prompt", "no prompt")
    if shared in (len(chosen), len(rejected)):
        raise RowError("one transcript is the beginning of the other, so one answer is empty", "empty")
    apart = {chosen[shared]["role"], rejected[shared]["role"]} - {"assistant"}
    if apart:
        raise RowError(f"the transcripts differ in a turn of '{sorted(apart)[0]}', so they answer different prompts")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """(prompt, chosen completion, rejected completion) of two texts that begin alike; each pair joins to its text.

    The cut falls in front of white space, which goes with the completions; in a text without spaces, between two
    characters that do not belong to one word. It never falls inside a word, nor between a letter and its accent.

    Raises:
        RowError: nothing in common, or nothing different.
    """
    if chosen == rejected:
        raise RowError("chosen and rejected are the same text", "identical")
    shared = next((at for at, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), len(chosen))
    longest = min(shared, len(chosen) - 1, len(rejected) - 1)
    for border in (_before_space, _between_words):
        for at in range(longest, 0, -1):
            if border(chosen, at) and border(rejected, at) and chosen[:at].strip():
                answers = chosen[at:], rejected[at:]
                if all(part.strip() for part in answers):
                    return chosen[:at], *answers
    raise RowError("chosen and rejected do not begin with the same word, and there is no prompt", "no prompt")


def _before_space(text: str, at: int) -> bool:
    return text[at].isspace() and not text[at - 1].isspace()


def _between_words(text: str, at: int) -> bool:
    before, after = text[at - 1], text[at]
    if before in _JOINERS or after in _JOINERS or unicodedata.category(after).startswith("M"):
        return False
    if unicodedata.category(after) == "Sk":  # the skin tone of the emoji in front of it
        return False
    return not (_in_spaced_word(before) and _in_spaced_word(after))


def _in_spaced_word(character: str) -> bool:
    """A letter, mark or digit of a script that puts spaces between words."""
    if character == "_" or unicodedata.category(character).startswith("M"):
        return True
    return character.isalnum() and not unicodedata.name(character, "").startswith(_UNSPACED)


_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC")
