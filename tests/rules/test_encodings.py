"""The encodings against numpy in float64, over blocks of every scale, and what they promise beyond."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hf_winopt.rules import encodings as ours
from hf_winopt.rules.encodings import LARGEST, REMAINDER, S8, S8_DITHERED, U8, U16, Encoding
from tests.rules import encodings_oracle as oracle

BLOCKED = {"S8": S8, "S8 dithered": S8_DITHERED, "U16": U16, "U8": U8}
DECODED = {
    "S8": oracle.s8_decoded,
    "S8 dithered": oracle.s8_decoded,
    "U16": oracle.u16_decoded,
    "U8": oracle.u8_decoded,
}
SCALES = [10.0**e for e in range(-38, 31, 4)]
CPU = torch.device("cpu")
EVERY = pytest.mark.parametrize("name", BLOCKED)
DITHERED = pytest.mark.parametrize("name", ["S8 dithered", "U8"])
UNSIGNED = pytest.mark.parametrize("name", ["U16", "U8"])


def judged(name: str, v: np.ndarray, t: int) -> tuple[np.ndarray, float]:
    if name == "S8":
        return oracle.s8(v)
    if name == "U16":
        return oracle.u16(v)
    return (oracle.s8_dithered if name == "S8 dithered" else oracle.u8)(v, oracle.dither(t))


def encoded(name: str, values: Tensor, t: int = 1) -> tuple[Tensor, Tensor]:
    codes, a = BLOCKED[name].encode(values, ours.dither(ours.phase(t), CPU))
    assert a is not None and codes.dtype == BLOCKED[name].dtype and a.dtype == torch.float32
    return codes, a


def decoded(name: str, codes: Tensor, a: Tensor) -> Tensor:
    values = BLOCKED[name].decode(codes, a)
    assert values.dtype == torch.float32
    return values


def blocks(name: str, scales: list[float] = SCALES, seed: int = 0) -> Tensor:
    """Plain, wide, with an outlier, and of one magnitude; no negative ones where the encoding has no sign."""
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(8, 128, generator=g, dtype=torch.float64)
    wide = normal * 10 ** (-8 * torch.rand(8, 128, generator=g, dtype=torch.float64))
    outlier = normal.clone()
    outlier[:, 17] = 1e6
    equal = normal.sign()
    half_zero = normal * (torch.rand(8, 128, generator=g) < 0.5)
    kinds = torch.cat([normal, wide, outlier * 1e-6, equal, half_zero])
    every = torch.cat([(kinds * scale).float() for scale in scales])
    return every.abs() if name in ("U16", "U8") else every


def places(name: str, codes: np.ndarray) -> np.ndarray:
    """Codes as whole numbers, a neighbour one away."""
    return codes.view(np.int16).astype(np.int64) if name == "U16" else codes.astype(np.int64)


# against the judge ---------------------------------------------------------------------------------------------------


@EVERY
def test_codes_and_scales_against_float64(name):
    """Float32's last bits move a value over a rounding edge now and then: then by one code."""
    values, flipped, worst = blocks(name), 0, 0
    for t in (1, 2, 77, 12_345):
        codes, a = encoded(name, values, t)
        for v, k, scale in zip(values.numpy(), codes.numpy(), a.view(-1).tolist()):
            theirs, right = judged(name, v, t)
            assert scale == right
            apart = np.abs(places(name, k) - places(name, theirs.astype(k.dtype)))
            flipped, worst = flipped + int((apart > 0).sum()), max(worst, int(apart.max()))
    assert worst <= 1 and flipped <= 1e-3 * 4 * values.numel()


@EVERY
def test_decoded_values_against_float64(name):
    """To float32's rounding, of what is not smaller than float32 can say."""
    codes, a = encoded(name, blocks(name))
    for k, scale, value in zip(codes.numpy(), a.view(-1).tolist(), decoded(name, codes, a).numpy()):
        np.testing.assert_allclose(value, DECODED[name](k, scale), rtol=1e-6, atol=2e-45)


def test_the_dither():
    for t in (1, 2, 3, 1000, 10**6, 10**9):
        assert ours.phase(t) == oracle.phi(t) and 0 <= ours.phase(t) < 1
        assert (ours.phase(t) * 2**20).is_integer()
        r = ours.dither(ours.phase(t), CPU)
        assert r.dtype == torch.float32 and r.shape == (128,)
        assert np.array_equal(r.double().numpy(), oracle.dither(t))  # exact: 20 bits and 8 fit into a float32
        assert r.min() >= 0 and r.max() < 1
    assert len(set(ours.dither(0.0, CPU).tolist())) == 128


def test_a_phase_in_a_tensor_is_the_same():
    phi = ours.phase(12)
    assert torch.equal(ours.dither(torch.tensor(phi), CPU), ours.dither(phi, CPU))


def test_the_remainder():
    values = torch.cat([torch.randn(4096) * scale for scale in (1e-9, 1e-6, 1e-3, 1.0, 100.0)])
    codes, a = REMAINDER.encode(values, None)
    assert a is None and codes.dtype == torch.float16
    theirs = oracle.remainder(values.numpy())
    assert np.array_equal(codes.numpy(), theirs)
    np.testing.assert_array_equal(REMAINDER.decode(codes, None).double().numpy(), oracle.remainder_decoded(theirs))
    assert torch.equal(REMAINDER.encode(REMAINDER.decode(codes, None), None)[0], codes)
    assert REMAINDER.encode(torch.tensor([torch.inf, -torch.inf]), None)[0].tolist() == [-65504.0, 65504.0]


@pytest.mark.parametrize("encoding", [ours.BF16, ours.FLOAT32], ids=["bf16", "float32"])
def test_what_has_no_scale(encoding: Encoding):
    values = torch.randn(1000)
    codes, a = encoding.encode(values, None)
    assert a is None and codes.dtype == encoding.dtype and torch.equal(codes, values.to(encoding.dtype))
    assert torch.equal(encoding.decode(codes, a), values.to(encoding.dtype).float())


# there and back ------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("t", [1, 2, 1000])
def test_the_largest_value_is_itself_again(name, t):
    values = blocks(name, seed=1)
    back = decoded(name, *encoded(name, values, t))
    assert torch.equal(back.abs().amax(1), values.abs().amax(1))


@EVERY
def test_encoding_again_gives_the_same_codes(name):
    """Where float32 can say what is decoded. With dither, but for values a rounding below their code's: by one."""
    values = blocks(name, [scale for scale in SCALES if scale > 1e-20], seed=2)
    codes, a = encoded(name, values)
    for t in (1, 2, 3):
        again, scales = encoded(name, decoded(name, codes, a), t)
        assert torch.equal(scales, a)
        if not BLOCKED[name].dithers:
            assert torch.equal(again, codes)
            continue
        apart = (again.int() - codes.int()).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() <= 1e-3


@EVERY
def test_signs_stay_and_nothing_grows(name):
    values = blocks(name, [1.0], seed=3)
    back = decoded(name, *encoded(name, values))
    assert ((back.sign() == values.sign()) | (back == 0) | (values == 0)).all()
    assert (back.abs() <= values.abs().amax(1, keepdim=True)).all()


@EVERY
def test_blocks_of_zeros(name):
    values = torch.randn(3, 128).abs()
    values[1] = 0
    codes, a = encoded(name, values)
    assert (codes[1] == 0).all() and a[1] == 0 and (a[[0, 2]] > 0).all()
    assert (decoded(name, codes, a)[1] == 0).all()
    assert torch.equal(encoded(name, torch.full((1, 128), -0.0))[0].float(), torch.zeros(1, 128))


@EVERY
def test_denormal_blocks(name):
    """A block whose largest value is below 1e-38: codes as ever; the smallest one of all is not lost."""
    values = torch.full((2, 128), 1e-40)
    values[1] = 2.0**-149
    codes, a = encoded(name, values)
    assert torch.equal(decoded(name, codes, a), values)


@EVERY
def test_a_nan_is_seen_in_its_whole_block_and_in_no_other(name):
    values = torch.randn(3, 128).abs()
    codes, a = encoded(name, values)
    before = decoded(name, codes, a)
    values[1, 40] = torch.nan
    after = decoded(name, *encoded(name, values))
    assert after[1].isnan().all()
    assert torch.equal(after[[0, 2]], before[[0, 2]])


@EVERY
@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinity_is_capped_and_an_infinite_square_is_infinite_again(name, sign):
    values = torch.randn(2, 128).abs()
    values[0, 5] = sign * torch.inf if name.startswith("S8") else torch.inf
    codes, a = encoded(name, values)
    back = decoded(name, codes, a)
    assert a[0] == LARGEST and a[1] < 10 and not back.isnan().any() and back[1].isfinite().all()
    assert back[0, 5] == (sign * LARGEST if name.startswith("S8") else torch.inf)


@UNSIGNED
def test_never_nothing_where_the_block_is_something(name):
    for largest in (1e-30, 1.0, 1e30, float(LARGEST)):
        values = torch.zeros(1, 128)
        values[0, 9] = largest
        for t in range(1, 50):
            codes, a = encoded(name, values, t)
            assert (codes != 0).all()
            assert (decoded(name, codes, a) > 0).all() or largest == 1e-30


# what the dither is for ----------------------------------------------------------------------------------------------

STEPS = 4096


def mean_decoded(name: str, y: float) -> Tensor:
    """Over the steps, of a block that holds `y` everywhere but for its largest value, 1, in turn at two places."""
    r = torch.stack([ours.dither(ours.phase(t), CPU) for t in range(1, STEPS + 1)])
    values = torch.full((STEPS, 128), y)
    total = torch.zeros(128, dtype=torch.float64)
    for place in (0, 64):
        held = values.clone()
        held[:, place] = 1.0
        codes, a = BLOCKED[name].encode(held, r)
        assert a is not None
        means = decoded(name, codes, a).double().mean(0)
        total[places_but(place)] = means[places_but(place)]
    return total


def places_but(place: int) -> list[int]:
    return [j for j in range(128) if j != place]


@DITHERED
def test_the_mean_over_the_steps_is_the_value(name):
    """At each place of a block, on a code, between two and just beside one."""
    codes, power = (127, 4) if name == "S8 dithered" else (255, 8)
    at = [3, 9.5, 40.01, 77.77, 100.99, codes - 0.5, codes - 1]
    for k in at:
        y = float(np.float32((k / codes) ** power))
        assert (mean_decoded(name, y) / y - 1).abs().max() < 1e-3, k


@DITHERED
def test_the_mean_of_the_smallest_is_right_too(name):
    """Between 0 and the first code, or the first and the second where 0 is none: as a part of that step."""
    codes, power = (127, 4) if name == "S8 dithered" else (255, 8)
    for k in (0.3, 0.9) if name == "S8 dithered" else (1.3, 1.9):
        y, step = float(np.float32((k / codes) ** power)), ((int(k) + 1) ** power - int(k) ** power) / codes**power
        assert (mean_decoded(name, y) - y).abs().max() < 2e-3 * step


def test_the_mean_of_what_is_not_dithered_is_not():
    """The measure sees a bias where there is one."""
    y = (77.3 / 127) ** 4
    values = torch.full((1, 128), y)
    values[0, 0] = 1.0
    back = S8.decode(*S8.encode(values, None))
    assert (back[0, 1:] / y - 1).abs().min() > 1e-2
