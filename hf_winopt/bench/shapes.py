"""The parameter shapes of well-known models, and of any model that transformers can configure; no weights are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..optim.registry import suggestion

Shape = tuple[int, ...]


def bert_base() -> Iterator[Shape]:
    """`BertForSequenceClassification` with two labels: 109.5 M elements in 201 tensors."""
    width, inner = 768, 3072
    yield from ((30522, width), (512, width), (2, width), *_norm(width))
    for _ in range(12):
        for _ in range(4):
            yield from _linear(width, width)
        yield from (*_norm(width), *_linear(inner, width), *_linear(width, inner), *_norm(width))
    yield from (*_linear(width, width), *_linear(2, width))


def gpt2() -> Iterator[Shape]:
    """`GPT2LMHeadModel`, whose head is its embedding: 124.4 M elements in 148 tensors."""
    yield from _gpt2(width=768, layers=12)


def gpt2_large() -> Iterator[Shape]:
    """`GPT2LMHeadModel` in its large size: 774.0 M elements in 436 tensors."""
    yield from _gpt2(width=1280, layers=36)


def vit_base() -> Iterator[Shape]:
    """`ViTForImageClassification`, 224 pixels in patches of 16, 1000 classes: 86.6 M elements in 200 tensors."""
    width, inner = 768, 3072
    yield from ((1, 1, width), (1, 1 + 14 * 14, width), (width, 3, 16, 16), (width,))
    for _ in range(12):
        for _ in range(4):
            yield from _linear(width, width)
        yield from (*_linear(inner, width), *_linear(width, inner), *_norm(width), *_norm(width))
    yield from (*_norm(width), *_linear(1000, width))


def llama_1b() -> Iterator[Shape]:
    """`LlamaForCausalLM` of TinyLlama's geometry, the head not tied: 1,100.0 M elements in 201 tensors."""
    vocabulary, width, inner, key_width = 32000, 2048, 5632, 4 * 64
    yield (vocabulary, width)
    for _ in range(22):
        yield from ((width, width), (key_width, width), (key_width, width), (width, width))
        yield from ((inner, width), (inner, width), (width, inner), (width,), (width,))
    yield from ((width,), (vocabulary, width))


SHAPES: dict[str, Callable[[], Iterator[Shape]]] = {
    "bert-base": bert_base,
    "gpt2": gpt2,
    "gpt2-large": gpt2_large,
    "vit-base": vit_base,
    "llama-1b": llama_1b,
}
"""Name -> shapes; any other name is taken for a model of the Hub or a folder."""


def shapes_of(name: str) -> tuple[Shape, ...]:
    """The shapes of all parameters, tied ones once.

    Args:
        name: one of `SHAPES`, or what `transformers.AutoConfig.from_pretrained` takes: a model id or a folder with a
            `config.json`. Such a model is the bare one, without a head.

    Raises:
        ValueError: neither of the two.
    """
    return tuple(SHAPES[name]()) if name in SHAPES else _of_configuration(name)


def _norm(width: int) -> tuple[Shape, Shape]:
    return (width,), (width,)


def _linear(rows: int, columns: int) -> tuple[Shape, Shape]:
    return (rows, columns), (rows,)


def _gpt2(width: int, layers: int) -> Iterator[Shape]:
    inner = 4 * width
    yield from ((50257, width), (1024, width))
    for _ in range(layers):
        # GPT-2 keeps its matrices transposed: a bias is as long as its matrix has columns
        yield from (*_norm(width), (width, 3 * width), (3 * width,), (width, width), (width,))
        yield from (*_norm(width), (width, inner), (inner,), (inner, width), (width,))
    yield from _norm(width)


def _of_configuration(name: str) -> tuple[Shape, ...]:
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            model = AutoModel.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"unknown shapes {name!r}{suggestion(name, SHAPES)} Known shapes: {', '.join(SHAPES)}; "
            f"or a model that transformers can configure, which {name!r} is not: {reason}"
        ) from error
    return tuple(tuple(p.shape) for p in model.parameters())
