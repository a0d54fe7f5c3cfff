"""Values of SQLite as SQL text that every SQLite from 3.40 on reads back as the same value, bit for bit.

Each literal is one line, whatever the value holds: the sqlite3 shell drops carriage returns and stops at NUL, and a
reader of the file can rely on a row being a line.
"""

import math
import re

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_ENDS = (("\n", r"\n"), ("\r", r"\r"))
_LONGEST_EXACT_DIGITS = 15
_GREATEST_EXACT_POWER = 22
_POWER = 62
_DOUBLE_DIGITS = 53


def literal(kind: str, value: float | bytes | str | None, encoding: str) -> str:
    """One value as SQL.

    Args:
        kind: What `typeof()` says of it.
        value: It; for text its bytes in the database's encoding, so that text no decoder accepts survives too.
        encoding: Python's name of the database's encoding.
    """
    if kind == "text" and isinstance(value, bytes):
        return _text(value, encoding)
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, float):
        return _real(value)
    return "NULL" if value is None else str(value)


def _text(raw: bytes, encoding: str) -> str:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return _cast(raw)
    if _CONTROLS.search(text):
        return _cast(raw)
    ends = [(character, name) for character, name in _LINE_ENDS if character in text]
    if any(name in text for _, name in ends):  # the stand-in is already there, and would become a line end
        return _cast(raw)
    result = "'" + text.replace("'", "''") + "'"
    for character, name in ends:
        result = f"replace({result.replace(character, name)},'{name}',char({ord(character)}))"
    return result


def _cast(raw: bytes) -> str:
    """Bytes as text: a cast takes them to be in the encoding of the database that reads this."""
    return f"CAST(X'{raw.hex()}' AS TEXT)"


def _real(value: float) -> str:
    """A double, exactly.

    SQLite's reading of decimals is off by one bit for some numbers, and not for the same ones in every version. So a
    decimal stands only for what it equals exactly (4.5); anything else is an integer scaled by powers of two, which
    involves no rounding at all. The decimal is then beside it, for people.
    """
    if math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    if _is_exact_decimal(value):
        return repr(value)
    fraction, exponent = math.frexp(value)
    mantissa, exponent = int(fraction * 2**_DOUBLE_DIGITS), exponent - _DOUBLE_DIGITS
    while mantissa % 2 == 0:
        mantissa, exponent = mantissa // 2, exponent + 1
    sign, left = ("*" if exponent > 0 else "/"), abs(exponent)
    steps = []
    while left:
        steps.append(f"{sign}{2 ** min(left, _POWER)}")
        left -= min(left, _POWER)
    return f"{mantissa}*1.0{''.join(steps)}/*{value!r}*/"


def _is_exact_decimal(value: float) -> bool:
    """Whether its shortest decimal equals it, and is so short that reading it cannot round."""
    mantissa, _, exponent = repr(value).lower().partition("e")
    whole, _, decimals = mantissa.lstrip("-").partition(".")
    digits, power = (whole + decimals).strip("0"), int(exponent or 0) - len(decimals)
    if len(digits) > _LONGEST_EXACT_DIGITS or abs(power) > _GREATEST_EXACT_POWER:
        return False
    numerator, denominator = value.as_integer_ratio()
    scale = 10 ** abs(power)
    exact = int(whole + decimals) * (1 if power < 0 else scale)
    return abs(numerator) * (scale if power < 0 else 1) == exact * denominator
