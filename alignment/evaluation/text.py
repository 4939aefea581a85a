"""Text for people: model text made safe to show, and numbers written the same way everywhere."""

from __future__ import annotations

import math
import re
from typing import Any

NOTHING = "–"

# Control characters can end a page or drive a terminal; lone surrogates are no UTF-8; overrides and isolates reorder
# the text around them on screen.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_LINE_ENDS = str.maketrans({"\u2028": "\n", "\u2029": "\n", "\x85": "\n", "\r": "\n"})


def visible(text: Any) -> str:
    """`text` with every control character, bidirectional override and lone surrogate written out as `<U+202E>`.

    Line ends become plain newlines; tabs stay. What is left can be encoded as UTF-8 and drives no terminal. It is not
    escaped for HTML, Markdown or rich markup.
    """
    plain = str(text).replace("\r\n", "\n").translate(_LINE_ENDS)
    return _UNSAFE.sub(lambda found: f"<U+{ord(found[0]):04X}>", plain)


def shortened(text: str, most: int) -> str:
    """`text`, cut to `most` characters with the number of characters that were left out."""
    return text if len(text) <= most else f"{text[:most].rstrip()} … (+{len(text) - most:,} characters)"


def number(value: Any) -> float | None:
    """`value` as a finite float, or None where it is absent, not a number, NaN or infinite."""
    if value is None or isinstance(value, str):
        return None
    try:
        converted = float(value)
    except (TypeError, ValueError):
        return None
    return converted if math.isfinite(converted) else None


def decimal(value: Any, digits: int = 2, sign: bool = False, unit: str = "") -> str:
    """`+0.55`, `1,204 MB`: a number with its unit, or a dash where there is none."""
    finite = number(value)
    if finite is None:
        return NOTHING
    finite = round(finite, digits) + 0.0  # no -0.00
    return f"{finite:{'+' if sign and finite else ''},.{digits}f}{unit}"


def percent(value: Any, digits: int = 1) -> str:
    """A share in [0, 1] as `71.0 %`."""
    finite = number(value)
    return NOTHING if finite is None else f"{100 * finite:.{digits}f} %"


def interval(bounds: Any, digits: int = 2) -> str:
    """`[+0.30, +0.80]` from two numbers, or nothing where they are not two finite ones."""
    ends = [number(end) for end in bounds] if isinstance(bounds, (list, tuple)) else []
    if len(ends) != 2 or None in ends:
        return ""
    return f"[{decimal(ends[0], digits, sign=True)}, {decimal(ends[1], digits, sign=True)}]"


def plus_minus(mean: Any, error: Any, digits: int = 2) -> str:
    """`1.23 ± 0.15`; the mean alone where the error is not known."""
    text = decimal(mean, digits)
    return text if NOTHING in (text, decimal(error, digits)) else f"{text} ± {decimal(error, digits)}"


def duration(seconds: Any) -> str:
    """`48 s`, `3 min 31 s`, `2 h 05 min` from seconds."""
    finite = number(seconds)
    if finite is None:
        return NOTHING
    if finite < 10:
        return f"{finite:.1f} s"
    whole = round(finite)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
