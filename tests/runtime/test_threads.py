"""Our threads: all items, errors, one number for all, and what becomes of them in a fork."""

from __future__ import annotations

import os
import signal
import warnings

import numpy as np
import pytest

from irgrad.runtime.threads import limited, parallel, threads


def test_every_item_is_worked_on_once() -> None:
    done = np.zeros(100, np.int64)

    def work(k: int) -> None:
        assert threads() == 1
        done[k] += 1

    with limited(4):
        assert threads() == 4
        parallel(work, range(100))
    np.testing.assert_array_equal(done, 1)


def test_an_error_reaches_the_caller_and_the_threads_go_on() -> None:
    def work(k: int) -> None:
        if k == 3:
            raise ValueError("the third")

    with limited(3):
        for _ in range(3):
            with pytest.raises(ValueError, match="the third"):
                parallel(work, range(8))
        parallel(lambda k: None, range(8))
        assert threads() == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_has_threads_of_its_own() -> None:
    """The parent's do not exist in the child, which would wait for them for ever."""
    with limited(2):
        parallel(lambda k: None, range(4))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a process with threads forks is the point
            child = os.fork()
        if not child:
            signal.alarm(20)
            parallel(lambda k: None, range(4))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
