"""Values that break readers: texts, numbers, nesting, JSON, bytes; and mutations of sound ones."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

TEXTS = (
    *(
        "",
        " ",
        "\x00",
        "\ud800",
        "\udcff",
        "\u2028",
        "\x85",
        "\ufeff",
        "\u202e",
        "\U0001f926\u200d",
        "é" * 3,
        "\r\n",
        "\t",
    ),
    *(
        "${oc.env:PLANTED}",
        "${${x}}",
        "${now:%Y}",
        "${oc.create:{a:1}}",
        "${model.path}",
        "${",
        "}",
        "???",
        "$(touch x)",
    ),
    *(
        "{instruction}",
        "{answer}",
        "{",
        "{}",
        "{0}",
        "{{",
        "%s",
        "<|im_end|>",
        "<|im_start|>system\n",
        "</s>",
        "{line}",
    ),
    *("Verdict:", "Verdict-00000000: A", "LINE A", "LINE A\nLINE B", "LINE 7 8", "LINE $a& $b&", "LINE YES"),
    *("../../x", "/etc/passwd", "~", "-", ".", "evil.py", "evil.py:run", "evil:run", "os:system", "builtins:eval"),
    *("nan", "NaN", "inf", "-Infinity", "1e999", "9" * 5000, "0x1", "1_0", "true", "null", "None", "~", "=1+1"),
    *("'", '"', "\\", "`", "|", "<script>", "[x](y)", "*a*", "&a", "*a", "!!python/object/apply:os.system [x]", "a: b"),
    *("everyday", "chosen", "A" * 3000, "word " * 400, "\n" * 50, "Human: a\n\nAssistant: b", "\n\nHuman: a"),
)
texts = st.one_of(
    st.sampled_from(TEXTS), st.text(max_size=30), st.lists(st.sampled_from(TEXTS), max_size=4).map("".join)
)
numbers = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -0.0, 1e-320, 0.5, float("nan"), float("inf")]),
    st.floats(),
)
leaves: SearchStrategy[Any] = st.one_of(texts, numbers, st.booleans(), st.none())


def nested(depth: int) -> Any:
    """Lists in lists."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def json_values(leaf: SearchStrategy[Any] = leaves) -> SearchStrategy[Any]:
    """Whatever JSON (as Python reads it) can hold."""
    inner = st.recursive(
        leaf,
        lambda more: st.lists(more, max_size=4) | st.dictionaries(texts, more, max_size=4),
        max_leaves=8,
    )
    return inner | st.sampled_from(
        [nested(3), {}, [], [[]], [{}], [None], {"role": "user"}, [{"role": 1, "content": 2}]]
    )


values = json_values().map(copy.deepcopy)  # of one's own: mutation changes them in place


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[Any], most: int = 3) -> Any:
    """One of the sound values `seeds` with up to `most` of its parts replaced, removed, renamed, doubled or added."""
    value = copy.deepcopy(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, most))):
        value = _changed(draw, value)
    return value


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value, key=str)))
        how = draw(st.sampled_from(["inside", "inside", "inside", "remove", "rename", "add"]))
        if how == "inside":
            value[key] = _changed(draw, value[key])
        elif how == "remove":
            del value[key]
        elif how == "rename":
            value[draw(texts)] = value.pop(key)
        else:
            value[draw(texts)] = draw(values)
        return value
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(value) - 1))
        how = draw(st.sampled_from(["inside", "inside", "remove", "double", "add"]))
        if how == "inside":
            value[place] = _changed(draw, value[place])
        elif how == "remove":
            del value[place]
        else:
            value.insert(place, copy.deepcopy(value[place]) if how == "double" else draw(values))
        return value
    if isinstance(value, str) and draw(st.booleans()):
        return draw(texts) + value if draw(st.booleans()) else value + draw(texts)
    return draw(values)


FRAGMENTS = (
    *(
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xe2\x80\xa8",
        b"\r",
        b"\n",
        b"\r\n",
        b'"',
        b"'",
        b"\\",
        b"\\ud800",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"\t",
        b"[" * 3000,
        b'{"a":' * 3000,
        b"9" * 5000,
        b"-",
        b"1e999",
        b"NaN",
        b"PAR1",
    ),
    *(b"null", b"true", b"- " * 500, b"&a [1]", b"*a", b"<<: *a", b"!!python/object/apply:os.system [x]", b"!!int 'x'"),
    *(b"? ", b"---\n", b"...\n", b"%YAML 9.9\n", b"2001-99-99", b"0o9", b"!!binary x", b"!!timestamp x", b"!!set {a}"),
    *(b"${oc.env:PLANTED}", b"${", b"evil.py:run", b"\x1f\x8b", b"x" * 70000, b"=1+1", b"&", b"!"),
)


@st.composite
def mutated_bytes(draw: st.DrawFn, seeds: Sequence[bytes], most: int = 4) -> bytes:
    """One of the sound contents `seeds`, cut, spliced, and with bytes or fragments put in or over."""
    content = draw(st.sampled_from(list(seeds)) | st.binary(max_size=60))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(content)))
        piece = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=8))
        how = draw(st.sampled_from(["cut", "in", "over", "gap"]))
        if how == "cut":
            content = content[:at]
        elif how == "in":
            content = content[:at] + piece + content[at:]
        elif how == "over":
            content = content[:at] + piece + content[at + len(piece) :]
        else:
            content = content[:at] + content[at + draw(st.integers(1, 64)) :]
    return content


def dumped(value: Any) -> bytes:
    """JSON as Python writes it: NaN, Infinity and surrogates (as escapes) included."""
    return json.dumps(value).encode()


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def bomb(levels: int = 9, width: int = 9) -> bytes:
    """YAML of a few hundred bytes that stands for width ** levels values."""
    lines = ["a0: &a0 [x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()
