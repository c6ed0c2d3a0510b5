"""Every instruction that is known: what it takes, what it leaves, and how that is computed, in C.

What is not here is not guessed at: `div.full` and `sqrt.approx` leave bits open, and `add.f32`, which says less than
`add.rn.f32`, leaves it to ptxas whether a product is rounded before it is added. All rounding is C's, to the nearest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

FLOATS = ("f32", "f64")

HOLDS = ("all or nothing", "same halves", "joined", "parted", "must")
"""What of the results holds something, where sources may not; see machine.h."""


@dataclass(frozen=True)
class Operation:
    """An instruction.

    Args:
        results, sources: where each is in a register: a member of `cell` in machine.c.
        values: of the results, in C, where sources are called a, b and c.
        function: in threads.h or memory.h, for what is more than values.
        holds: one of `HOLDS`.
    """

    results: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    function: str = ""
    holds: str = "all or nothing"

    def definition(self, name: str) -> str:
        """The C function that carries it out."""
        sources = (f"const {c_type(kind)} {'abc'[k]} = SOURCE({k}, {kind});" for k, kind in enumerate(self.sources))
        results = (f"RESULT({k}, {kind}, {self.values[k]});" for k, kind in enumerate(self.results))
        body = " ".join((*sources, *results))
        return f"static const char *{name}(machine *m, const instruction *i) {{ EACH_THREAD {{ {body} }} return 0; }}"


def c_type(kind: str) -> str:
    return {"f32": "float", "f64": "double"}.get(kind) or f"{'u' * (kind[0] == 'u')}int{kind[1:]}_t"


def member(kind: str) -> str:
    """Where PTX's type is in a register: plain bits are an unsigned number, a predicate one of 8 bits."""
    return "u8" if kind == "pred" else kind.replace("b", "u")


def _alike(kind: str, sources: int, value: str) -> Operation:
    """Sources and result of one type."""
    return Operation((member(kind),), (member(kind),) * sources, (value,))


def _floating() -> Iterator[tuple[str, Operation]]:
    arithmetic = {
        "add.rn{}": (2, "a + b"),
        "sub.rn{}": (2, "a - b"),
        "mul.rn{}": (2, "a * b"),
        "div.rn{}": (2, "a / b"),
        "fma.rn{}": (3, "fma_of(a, b, c)"),
        "sqrt.rn{}": (1, "sqrt_of(a)"),
        "min{}": (2, "min_of(a, b)"),
        "max{}": (2, "max_of(a, b)"),
        "abs{}": (1, "fabs(a)"),
        "neg{}": (1, "-a"),
    }
    single = {  # double precision has no such forms
        "min{}.NaN": (2, "a != a || b != b ? a + b : min_of(a, b)"),
        "max{}.NaN": (2, "a != a || b != b ? a + b : max_of(a, b)"),
    }
    for name, (sources, value) in arithmetic.items():
        yield f"{name.format('')}.f64", _alike("f64", sources, value.replace("_of", "_f64"))
    for name, (sources, value) in (arithmetic | single).items():
        plain = value.replace("_of", "_f32")
        flushed = re.sub(r"\b[abc]\b", r"flush(\g<0>)", plain)
        keep = "{}" if name in ("abs{}", "neg{}") else "canonical({})"
        yield f"{name.format('')}.f32", _alike("f32", sources, keep.format(plain))
        yield f"{name.format('.ftz')}.f32", _alike("f32", sources, f"flush({keep.format(flushed)})")


def _of_a_blackwell() -> Iterator[tuple[str, Operation]]:
    """A number in half precision and one in single; two pairs of numbers, each pair in one register."""
    for half in ("f16", "bf16"):
        for name, sign in {"add": "+", "sub": "-"}.items():
            value = f"canonical(from_{half}(a) {sign} b)"
            yield f"{name}.rn.f32.{half}", Operation(("f32",), ("u16", "f32"), (value,))
    each = {"add": "{0}(a) + {0}(b)", "sub": "{0}(a) - {0}(b)", "mul": "{0}(a) * {0}(b)"}
    for name, value in (each | {"fma": "fma_f32({0}(a), {0}(b), {0}(c))"}).items():
        low, high = (f"canonical({value.format(half)})" for half in ("low", "high"))
        operation = _alike("b64", value.count("{0}"), f"pair({low}, {high})")
        yield f"{name}.rn.f32x2", replace(operation, holds="same halves")


def _integers() -> Iterator[tuple[str, Operation]]:
    for bits in (16, 32, 64):
        for sign in "su":
            kind = f"{sign}{bits}"
            # with a sign or without it the lower bits are the same, and in C only what has none may overflow
            for name, value in {"add": "a + b", "sub": "a - b", "mul.lo": "(uint64_t)a * b"}.items():
                yield f"{name}.{kind}", _alike(f"b{bits}", 2, value)
            yield f"mad.lo.{kind}", _alike(f"b{bits}", 3, "(uint64_t)a * b + c")
            yield f"min.{kind}", _alike(kind, 2, "a < b ? a : b")
            yield f"max.{kind}", _alike(kind, 2, "a > b ? a : b")
        yield f"neg.s{bits}", _alike(f"b{bits}", 1, "0 - a")
        yield f"abs.s{bits}", _alike(f"s{bits}", 1, "a < 0 ? 0 - (uint64_t)a : a")
        for name, value in {"shl.b": "(uint64_t)a << b", "shr.u": "a >> b"}.items():
            yield f"{name}{bits}", Operation((f"u{bits}",), (f"u{bits}", "u32"), (f"b < {bits} ? {value} : 0",))
        yield f"shr.s{bits}", Operation((f"s{bits}",), (f"s{bits}", "u32"), (f"a >> (b < {bits} ? b : {bits - 1})",))
    for bits in (16, 32):
        for sign in "su":
            narrow, wide = f"{sign}{bits}", f"{sign}{2 * bits}"
            product = f"({c_type(wide)})a * b"
            yield f"mul.wide.{narrow}", Operation((wide,), (narrow, narrow), (product,))
            yield f"mad.wide.{narrow}", Operation((wide,), (narrow, narrow, f"u{2 * bits}"), (f"{product} + c",))
    # by 0 it gives what a GPU does
    yield "div.u32", _alike("u32", 2, "b ? a / b : -1")
    yield "rem.u32", _alike("u32", 2, "b ? a % b : a")
    yield "div.s32", _alike("s32", 2, "b == 0 ? -1 : b == -1 ? 0 - (uint32_t)a : a / b")
    yield "rem.s32", _alike("s32", 2, "b == 0 ? a : b == -1 ? 0 : a % b")
    for sign in "su":
        yield f"mul.hi.{sign}32", _alike(f"{sign}32", 2, f"({c_type(f'{sign}64')})a * b >> 32")
    for kind in ("pred", "b16", "b32", "b64"):
        for name, value in {"and": "a & b", "or": "a | b", "xor": "a ^ b"}.items():
            yield f"{name}.{kind}", _alike(kind, 2, value)
        yield f"not.{kind}", _alike(kind, 1, "!a" if kind == "pred" else "~a")
    yield "prmt.b32", _alike("b32", 3, "permute(a, b, c)")
    yield "bfe.u32", _alike("b32", 3, "extract(a, b, c)")


def _choices() -> Iterator[tuple[str, Operation]]:
    signs = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
    for bits in (16, 32, 64):
        for name, sign in signs.items():
            for kind in (f"s{bits}", f"u{bits}", *([f"b{bits}"] if name in ("eq", "ne") else [])):
                yield f"setp.{name}.{kind}", Operation(("u8",), (member(kind),) * 2, (f"a {sign} b",))
    ordered = "(a == a && b == b)"
    for kind in FLOATS:
        values = {name: f"{ordered} && a {sign} b" for name, sign in signs.items()}
        values |= {f"{name}u": f"!{ordered} || a {sign} b" for name, sign in signs.items()}
        for name, value in (values | {"num": ordered, "nan": f"!{ordered}"}).items():
            yield f"setp.{name}.{kind}", Operation(("u8",), (kind,) * 2, (value,))
    for kind in ("b16", "b32", "b64", "f32", "f64"):
        same = f"u{kind[1:]}"
        yield f"selp.{kind}", Operation((same,), (same, same, "u8"), ("c ? a : b",))


def _conversions() -> Iterator[tuple[str, Operation]]:
    integers = [f"{sign}{bits}" for bits in (8, 16, 32, 64) for sign in "su"]
    rounded = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
    for into in integers:
        for kind in integers:
            if into == "s8":  # there is no register so small, and the others it fills with the sign
                yield f"cvt.s8.{kind}", Operation(("s16",), (kind,), ("(int8_t)a",))
            else:
                yield f"cvt.{into}.{kind}", Operation((into,), (kind,), ("a",))
        for kind in FLOATS:
            yield f"cvt.rn.{kind}.{into}", Operation((kind,), (into,), ("a",))
            for name, function in rounded.items():
                yield f"cvt.{name}.{into}.{kind}", Operation((into,), (kind,), (_clamped(into, kind, function),))
    for name, function in rounded.items():
        yield f"cvt.{name}.f64.f64", _alike("f64", 1, f"{function}(a)")
        yield f"cvt.{name}.f32.f32", _alike("f32", 1, f"canonical({function}f(a))")
        yield f"cvt.{name}.ftz.f32.f32", _alike("f32", 1, f"canonical({function}f(flush(a)))")
    yield "cvt.rn.f32.f64", Operation(("f32",), ("f64",), ("canonical(a)",))
    yield "cvt.f64.f32", Operation(("f64",), ("f32",), ("a",))
    for half in ("f16", "bf16"):
        yield f"cvt.f32.{half}", Operation(("f32",), ("u16",), (f"canonical(from_{half}(a))",))
        yield f"cvt.rn.{half}.f32", Operation(("u16",), ("f32",), (f"to_{half}(a)",))
        both = f"(uint32_t)to_{half}(a) << 16 | to_{half}(b)"
        yield f"cvt.rn.{half}x2.f32", Operation(("u32",), ("f32", "f32"), (both,))
    yield "cvt.f64.f16", Operation(("f64",), ("u16",), ("from_f16(a)",))
    yield "cvt.rn.f16.f64", Operation(("u16",), ("f64",), ("to_f16(a)",))


def _clamped(into: str, kind: str, function: str) -> str:
    """Rounded to an integer, or the nearest that the type has; what is no number becomes one all the same."""
    bits = int(into[1:])
    smallest, size = (0, bits) if into[0] == "u" else (-(1 << bits - 1), bits - 1)
    small, large = (f"({c_type(into)}){value % (1 << 64):#x}ull" for value in (smallest, (1 << size) - 1))
    no_number = f"1ull << {bits - 1}" if kind == "f64" or bits == 64 else "0"
    whole = f"{function}(a)"
    fits = f"{whole} >= 0x1p{size} ? {large} : {whole} < {float(smallest).hex()} ? {small} : ({c_type(into)}){whole}"
    return f"a != a ? {no_number} : {fits}"


def _moves() -> Iterator[tuple[str, Operation]]:
    yield "mov.pred", Operation(("u8",), ("u8",), ("a != 0",))
    for bits in (16, 32, 64):
        for kind in "bus" if bits == 16 else "busf":
            yield f"mov.{kind}{bits}", replace(_alike(f"b{bits}", 1, "a"), holds="same halves")
    for bits, half in ((32, 16), (64, 32)):
        whole, halves = (f"u{bits}",), (f"u{half}",) * 2
        yield f"mov.b{bits} to 2", Operation(halves, whole, ("a", f"a >> {half}"), holds="parted")
        yield f"mov.b{bits} from 2", Operation(whole, halves, (f"a | ({c_type(whole[0])})b << {half}",), holds="joined")


def _beyond_a_thread() -> Iterator[tuple[str, Operation]]:
    functions = {"bra": "branch", "bra.uni": "branch", "ret": "leave", "exit": "leave", "bar.sync": "barrier"}
    functions |= {f"ld.{space}": f"load_{space}" for space in ("global", "shared")}
    functions |= {f"st.{space}": f"store_{space}" for space in ("global", "shared")}
    for name, function in (functions | {"trap": "trap"}).items():
        yield name, Operation(function=function, holds="must")
    yield "bar.warp.sync", Operation((), ("u32",), function="meet", holds="must")
    exchanges = {f"shfl.sync.{way}.b32": (f"shuffle_{way}", 4) for way in ("bfly", "up", "down", "idx")}
    for name in ("add.s32", "min.s32", "max.s32", "min.u32", "max.u32", "min.f32", "max.f32", "max.abs.f32"):
        exchanges[f"redux.sync.{name}"] = (f"reduce_{name.replace('.', '_')}", 2)
    for name, (function, sources) in exchanges.items():
        yield name, Operation(("u32",), ("u32",) * sources, function=function, holds="must")


FAMILIES = (_floating, _of_a_blackwell, _integers, _choices, _conversions, _moves, _beyond_a_thread)
OPERATIONS = {opcode: operation for family in FAMILIES for opcode, operation in family()}
NUMBERS = {opcode: number for number, opcode in enumerate(OPERATIONS)}


def source() -> str:
    """In C: a function for each, and a table of them by their numbers."""
    functions, names = [], []
    for number, operation in enumerate(OPERATIONS.values()):
        names.append(operation.function or f"operation_{number}")
        if not operation.function:
            functions.append(operation.definition(names[-1]))
    table = f"static const char *(*const operations[])(machine *, const instruction *) = {{{', '.join(names)}}};"
    return "\n".join([*functions, table, ""])
