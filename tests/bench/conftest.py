"""A model of which only the configuration exists."""

import pytest
from transformers import BertConfig


@pytest.fixture
def tiny_model(tmp_path):
    """A folder, as `--shapes` takes it."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    folder = tmp_path / "tiny"
    BertConfig(vocab_size=50, max_position_embeddings=8, **sizes).save_pretrained(folder)
    return folder
