"""All here needs Triton, and a C compiler as Triton needs it on a GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from .machine import compiler


@pytest.fixture(autouse=True, scope="session")
def _a_compiler():
    if compiler() is None:
        pytest.skip("there is no C compiler (install gcc, or name one in CC)")
