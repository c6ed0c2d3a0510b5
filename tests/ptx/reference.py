"""What PTX's manual says that instructions compute, in Python: exactly, as fractions, and rounded at the end.

Written from the manual and not from `operations.py`, which it is there to test. Operands and results are bits.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

FORMATS = {"f16": (11, -14, 16), "bf16": (8, -126, 16), "f32": (24, -126, 32), "f64": (53, -1022, 64)}
"""Digits, the exponent of the smallest number that is not subnormal, and bits."""

COMPARISONS = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
ROUNDINGS: dict[str, Callable[[Any], int]] = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


def expected(opcode: str, operands: Sequence[int]) -> list[int]:
    """The results of an instruction.

    Raises:
        KeyError: an instruction that is not known here.
    """
    for pattern, compute in FAMILIES.items():
        if match := re.fullmatch(pattern, opcode):
            results = compute(*match.groups(), *operands)
            return results if isinstance(results, list) else [results]
    raise KeyError(opcode)


# numbers and their bits ----------------------------------------------------------------------------------------------


def integer(bits: int, kind: str) -> int:
    """A number of a type such as `s16`, whatever stands above."""
    size = int(kind[1:])
    value = bits % (1 << size)
    return value - (1 << size) if kind[0] == "s" and value >> size - 1 else value


def number(bits: int, kind: str) -> float:
    """Every format is a part of double precision."""
    digits, smallest, size = FORMATS[kind]
    sign = -1.0 if bits >> size - 1 & 1 else 1.0
    fraction, exponent = bits % (1 << digits - 1), bits >> digits - 1 & (1 << size - digits) - 1
    if exponent == (1 << size - digits) - 1:
        return sign * (math.nan if fraction else math.inf)
    whole = fraction + (1 << digits - 1 if exponent else 0)
    return sign * math.ldexp(whole, max(exponent, 1) + smallest - digits)


def rounded(value: float | Fraction, kind: str) -> int:
    """The bits of the nearest number that a format has, of two the even one; of none, those that a GPU gives it."""
    digits, smallest, size = FORMATS[kind]
    sign, infinite = 1 << size - 1, (1 << size - digits) - 1 << digits - 1
    if isinstance(value, float):
        if math.isnan(value):
            return sign - 1
        if value == 0 or math.isinf(value):
            return (infinite if value else 0) + (sign if math.copysign(1, value) < 0 else 0)
    exact = abs(Fraction(value))
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    exponent = max(exponent - (Fraction(2) ** exponent > exact), smallest)
    steps = round(exact / Fraction(2) ** (exponent - digits + 1))
    return min(steps + (exponent - smallest << digits - 1), infinite) + (sign if value < 0 else 0)


def flushed(bits: int) -> int:
    """Single precision without what is subnormal."""
    return bits & 0x80000000 if not bits & 0x7F800000 else bits


# floating point ------------------------------------------------------------------------------------------------------


def add(a: float, b: float) -> float | Fraction:
    return Fraction(a) + Fraction(b) if math.isfinite(a + b) and a + b != 0 else a + b


def multiply(a: float, b: float) -> float | Fraction:
    return Fraction(a) * Fraction(b) if math.isfinite(a) and math.isfinite(b) and a and b else a * b


def divide(a: float, b: float) -> float | Fraction:
    if math.isfinite(a) and math.isfinite(b) and a and b:
        return Fraction(a) / Fraction(b)
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def fused(a: float, b: float, c: float) -> float | Fraction:
    product = multiply(a, b)
    if isinstance(product, float) or not math.isfinite(c):
        return c if isinstance(product, Fraction) else add(product, c)
    return product + Fraction(c) or 0.0


def root(a: float) -> float | Fraction:
    """A fraction of 1200 digits, and a little more where that is too small."""
    if not math.isfinite(a) or a <= 0:
        return a if a == 0 or a == math.inf else math.nan
    exact = Fraction(a) * Fraction(4) ** 1200
    below = math.isqrt(exact.numerator // exact.denominator)
    return (Fraction(below) + (Fraction(1, 2) if below * below != exact else 0)) / Fraction(2) ** 1200


def least(a: float, b: float) -> float:
    """A number rather than none; of two zeros the negative one."""
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return a if a < b or (a == b and math.copysign(1, a) < 0) else b


def most(a: float, b: float) -> float:
    return -least(-a, -b)


def or_none(choose: Callable[[float, float], float]) -> Callable[[float, float], float]:
    return lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else choose(a, b)


ARITHMETIC: dict[str, Callable[..., float | Fraction]] = {
    "add.rn": add,
    "sub.rn": lambda a, b: add(a, -b),
    "mul.rn": multiply,
    "div.rn": divide,
    "fma.rn": fused,
    "sqrt.rn": root,
    "min": least,
    "max": most,
    "min.NaN": or_none(least),
    "max.NaN": or_none(most),
}


def arithmetic(name: str, ftz: str | None, nan: str | None, kind: str, *operands: int) -> int:
    compute, keep = ARITHMETIC[name + (nan or "")], flushed if ftz else lambda bits: bits
    return keep(rounded(compute(*(number(keep(each), kind) for each in operands)), kind))


def signs(name: str, ftz: str | None, kind: str, a: int) -> int:
    """A change of sign is one, of whatever it is the sign."""
    size = FORMATS[kind][2]
    a = flushed(a) if ftz else a % (1 << size)
    return a ^ 1 << size - 1 if name == "neg" else a & (1 << size - 1) - 1


def mixed(name: str, half: str, a: int, b: int) -> int:
    return rounded(ARITHMETIC[f"{name}.rn"](number(a, half), number(b, "f32")), "f32")


def halves(name: str, *operands: int) -> int:
    compute = ARITHMETIC[f"{name}.rn"]
    low, high = ([number(each >> shift & 0xFFFFFFFF, "f32") for each in operands] for shift in (0, 32))
    return rounded(compute(*low), "f32") | rounded(compute(*high), "f32") << 32


# integers ------------------------------------------------------------------------------------------------------------


def divided(a: int, b: int) -> int:
    """Toward 0; by 0 all bits are set, as a GPU does it."""
    return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) if b else -1


INTEGERS: dict[str, Callable[..., int]] = {
    "div": divided,
    "rem": lambda a, b: a - divided(a, b) * b,
    "add": operator.add,
    "sub": operator.sub,
    "mul.lo": operator.mul,
    "mad.lo": lambda a, b, c: a * b + c,
    "min": min,
    "max": max,
    "neg": operator.neg,
    "abs": abs,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": operator.inv,
}


def integers(name: str, kind: str, *operands: int) -> int:
    return INTEGERS[name](*(integer(each, kind) for each in operands))


def predicates(name: str, *operands: int) -> int:
    return INTEGERS[name](*(each & 1 for each in operands)) & 1


def shifted(name: str, kind: str, a: int, by: int) -> int:
    """A shift by more than there are bits is one by all."""
    by = min(by & 0xFFFFFFFF, 64)
    return integer(a, kind) << by if name == "shl" else integer(a, kind) >> by


def wide(name: str, kind: str, a: int, b: int, c: int = 0) -> int:
    return integer(a, kind) * integer(b, kind) + c


def upper(kind: str, a: int, b: int) -> int:
    return integer(a, kind) * integer(b, kind) >> int(kind[1:])


def permuted(a: int, b: int, choice: int) -> int:
    held = (a & 0xFFFFFFFF | (b & 0xFFFFFFFF) << 32).to_bytes(8, "little")
    chosen = [(held[choice >> 4 * k & 7], choice >> 4 * k & 8) for k in range(4)]
    return int.from_bytes(bytes(255 * (byte >> 7) if sign else byte for byte, sign in chosen), "little")


def extracted(a: int, position: int, length: int) -> int:
    return (a & 0xFFFFFFFF) >> (position & 255) & (1 << (length & 255)) - 1


# choices, conversions and moves --------------------------------------------------------------------------------------


def compared(name: str, kind: str, a: int, b: int) -> int:
    if kind not in FORMATS:
        return COMPARISONS[name](integer(a, kind), integer(b, kind))
    x, y = number(a, kind), number(b, kind)
    unordered = math.isnan(x) or math.isnan(y)
    if name in ("num", "nan"):
        return unordered == (name == "nan")
    return name.endswith("u") if unordered else COMPARISONS[name[:2]](x, y)


def chosen(kind: str, a: int, b: int, condition: int) -> int:
    return a if condition & 1 else b


def converted(rounding: str | None, ftz: str | None, into: str, kind: str, a: int) -> int:
    if kind not in FORMATS:
        value: float | Fraction = Fraction(integer(a, "s8" if into == "s8" else kind))
        return rounded(value or 0.0, into) if into in FORMATS else int(value)
    x = number(flushed(a) if ftz else a, kind)
    if into in FORMATS:
        if rounding in ROUNDINGS and math.isfinite(x):
            x = math.copysign(ROUNDINGS[rounding](x), x)
        return rounded(x, into)
    size = int(into[1:])
    if math.isnan(x):
        return 1 << size - 1 if kind == "f64" or size == 64 else 0
    low, high = (0, (1 << size) - 1) if into[0] == "u" else (-1 << size - 1, (1 << size - 1) - 1)
    return max(low, min(high, ROUNDINGS[str(rounding)](x) if math.isfinite(x) else (high if x > 0 else low)))


def packed(half: str, a: int, b: int) -> int:
    """The first operand goes to the upper half."""
    return rounded(number(a, "f32"), half) << 16 | rounded(number(b, "f32"), half)


def parted(bits: str, a: int) -> list[int]:
    half = int(bits) // 2
    return [a, a >> half]


def joined(bits: str, a: int, b: int) -> int:
    half = int(bits) // 2
    return a % (1 << half) | b << half


FAMILIES: dict[str, Callable[..., Any]] = {
    r"(add\.rn|sub\.rn|mul\.rn|div\.rn|fma\.rn|sqrt\.rn|min|max)(\.ftz)?(\.NaN)?\.(f32|f64)": arithmetic,
    r"(abs|neg)(\.ftz)?\.(f32|f64)": signs,
    r"(add|sub)\.rn\.f32\.(f16|bf16)": mixed,
    r"(add|sub|mul|fma)\.rn\.f32x2": halves,
    r"(add|sub|mul\.lo|mad\.lo|div|rem|min|max|neg|abs|and|or|xor|not)\.([bus]\d+)": integers,
    r"(and|or|xor|not)\.pred": predicates,
    r"(shl|shr)\.([bus]\d+)": shifted,
    r"(mul|mad)\.wide\.([us]\d+)": wide,
    r"mul\.hi\.([us]\d+)": upper,
    r"prmt\.b32": permuted,
    r"bfe\.u32": extracted,
    r"setp\.(\w+)\.([busf]\d+)": compared,
    r"selp\.([bf]\d+)": chosen,
    r"cvt\.rn\.(f16|bf16)x2\.f32": packed,
    r"cvt(?:\.(rn|rni|rzi|rmi|rpi))?(\.ftz)?\.(\w+)\.(\w+)": converted,
    r"mov\.pred": lambda a: a % (1 << 64) != 0,
    r"mov\.[busf]\d+": lambda a: a,
    r"mov\.b(\d+) to 2": parted,
    r"mov\.b(\d+) from 2": joined,
}
