"""A Transformer-XL that its recipe pushed: the code that is pushed with it is all that a reader has of it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recipes.transformer_xl import vocabulary
from recipes.transformer_xl.modeling_transfo_xl import TransfoXLLMHeadModel
from tests.integrations import test_push
from tests.integrations.test_push import TWO, Workplace

SIZES = "--d_model 16 --n_layer 2 --n_head 2 --d_head 8 --d_inner 24 --cutoffs 5 12 --tgt_len 8 --mem_len 6"
TRAIN = (
    f"{SIZES} --optim adam_win --learning_rate 1e-2 --max_steps 6 --per_device_train_batch_size 4 --save_steps 3 "
    "--eval_strategy steps --eval_steps 3 --load_best_model_at_end true"
)
WORDS = ["the", "a", "cat", "dog", "old", "new", "sees", "hears", "fast", "slow", ".", ",", "and", "or", "but"]
PROMPT = "the old cat sees a dog and hears the"

# the memory is carried from one segment of 8 words to the next, as the model hands it out
LOAD = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.modules |= dict.fromkeys(("hf_winopt", "recipes", "tests"))  # not to be had here, even if installed
names, prompt, lines = json.load(sys.stdin)
found = {}
for name in names:
    model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
    words = [word for line in lines for word in (*tokenizer(line).input_ids, tokenizer.eos_token_id)]
    text = torch.tensor([[tokenizer.eos_token_id, *words]])
    mems, total = None, 0.0
    with torch.no_grad():
        for start in range(0, len(words), 8):
            part = text[:, start : start + 9]
            output = model(part[:, :-1], labels=part, mems=mems)
            mems, total = output.mems, total + output.loss.item() * (part.shape[1] - 1)
        logits = model(**tokenizer(prompt, return_tensors="pt")).logits
    found[name] = logits.tolist(), total / len(words), type(model).__module__
print(json.dumps(found))
"""
REFUSED = """
import json, pathlib, sys
from transformers import AutoModelForCausalLM

try:
    AutoModelForCausalLM.from_pretrained(json.load(sys.stdin))
except ValueError as error:
    message = str(error)
ran = [name for name in sys.modules if name.startswith("transformers_modules")]
fetched = [path.name for path in pathlib.Path.cwd().rglob("*.py")]
print()  # the question whether to trust it has no end of line
print(json.dumps([message, ran, fetched]))
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """Trained on a folder of text that is nobody's business either."""
    with test_push.workplace(tmp_path_factory.mktemp("words")) as place:
        place.push(
            "recipes.transformer_xl.run_transformer_xl", f"{TRAIN} --dataset_name {write_text(place.folder)}", TWO
        )
        yield place


def write_text(folder: Path) -> Path:
    choice = random.Random(0)
    (folder / "text").mkdir()
    for split, lines in {"train": 23, "validation": 6, "test": 7}.items():
        text = [" ".join(choice.choices(WORDS, range(len(WORDS), 0, -1), k=6)) for _ in range(lines)]
        (folder / "text" / f"{split}.txt").write_text("\n".join(text) + "\n")
    return folder / "text"


@pytest.fixture(scope="module")
def found(words: Workplace) -> dict[str, tuple[list, float, str]]:
    """Logits, loss of the test text and the class' module, of the models on the Hub."""
    lines = (words.folder / "text" / "test.txt").read_text().splitlines()
    return words.python(LOAD, [[f"owner/{strategy}" for strategy in TWO], PROMPT, lines])


@pytest.mark.parametrize("strategy", TWO)
def test_the_pushed_code_scores_the_same(strategy: str, words: Workplace, found: dict) -> None:
    test_push.check_files(words, strategy)
    logits, loss, module = found[f"owner/{strategy}"]
    assert module.startswith("transformers_modules.owner.")
    folder = words.folder / strategy
    tokens = vocabulary.load(str(folder))(PROMPT, return_tensors="pt")
    with torch.no_grad():
        assert TransfoXLLMHeadModel.from_pretrained(folder).eval()(**tokens).logits.tolist() == logits
    scores = words.results[strategy]["metrics"]["test"]
    assert math.isclose(loss, scores["loss"], rel_tol=1e-5)
    assert math.isclose(math.exp(loss), scores["perplexity"], rel_tol=1e-5)


def test_code_that_is_not_trusted_is_not_run(words: Workplace) -> None:
    message, ran, fetched = words.python(REFUSED, "owner/end")
    assert "trust_remote_code=True" in message
    assert not ran and not fetched


@pytest.mark.parametrize("strategy", TWO)
def test_state_only_where_checkpoints_are_pushed(strategy: str, words: Workplace) -> None:
    test_push.check_states(words, strategy)


@pytest.mark.parametrize("strategy", TWO)
def test_nothing_private_is_pushed(strategy: str, words: Workplace) -> None:
    """Nor where the text was, or the best checkpoint."""
    test_push.check_nothing_private(words.server, f"owner/{strategy}")
