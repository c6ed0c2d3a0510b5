"""The embedded data set: scikit-learn's digits, 1,797 scans of handwriting, 8 x 8 pixels. Nothing is downloaded."""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from sklearn.datasets import load_digits

TEST_SHARE = 0.2


def load() -> DatasetDict:
    """`train` and `test`, in the layout of image data sets on the Hub; as many of each digit in both."""
    digits = load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)  # scikit-learn counts to 16
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    rows = {"image": list(images), "label": digits.target.tolist()}
    data = Dataset.from_dict(rows, features=features)
    return data.train_test_split(TEST_SHARE, stratify_by_column="label", seed=0)
