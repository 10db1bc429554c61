from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code goes to a folder of this run, unless IRGRAD_CACHE names one that is to last."""
    with pytest.MonkeyPatch.context() as patch:
        if "IRGRAD_CACHE" not in os.environ:
            patch.setenv("IRGRAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
