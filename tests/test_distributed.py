"""Threads that libraries start, and processes that do not hear what their parent hears."""

import os
import signal
import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from ovseg.distributed import deaf_children, one_blas_thread

LIBRARIES = ThreadpoolController().select(user_api="blas").lib_controllers


def threads() -> list[int]:
    return [library.get_num_threads() for library in LIBRARIES]


@pytest.mark.skipif(not LIBRARIES, reason="NumPy uses no library whose threads can be limited")
def test_products_take_one_thread_and_the_setting_comes_back() -> None:
    before = threads()
    with threadpool_limits(2, user_api="blas"):
        with one_blas_thread():
            assert set(threads()) == {1}
            with one_blas_thread():
                assert np.ones((64, 64)).dot(np.ones((64, 64)))[0, 0] == 64
            assert set(threads()) == {1}
        assert set(threads()) == {2}
    assert threads() == before


@pytest.mark.skipif(not LIBRARIES, reason="NumPy uses no library whose threads can be limited")
def test_a_second_thread_does_not_take_the_limit_for_the_setting() -> None:
    """It waits for the first, and so finds what was set, not the first one's limit."""
    with threadpool_limits(2, user_api="blas"):
        inside, leave = threading.Event(), threading.Event()

        def first() -> None:
            with one_blas_thread():
                inside.set()
                leave.wait(10)

        def second() -> None:
            with one_blas_thread():
                pass

        one, other = threading.Thread(target=first), threading.Thread(target=second)
        one.start()
        assert inside.wait(10)
        other.start()
        other.join(0.2)
        assert other.is_alive()
        leave.set()
        one.join(10)
        other.join(10)
        assert set(threads()) == {2}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_another_thread_takes_waits_too(number: signal.Signals) -> None:
    heard: list[str] = []
    before = signal.signal(number, lambda *_: heard.append("signal"))
    done = threading.Event()
    threading.Thread(target=done.wait, daemon=True).start()  # blocks no signal
    try:
        with deaf_children():
            os.kill(os.getpid(), number)
            done.wait(0.1)  # Python would call the handler by now
            heard.append("block left")
        assert heard == ["block left", "signal"]
        os.kill(os.getpid(), number)
        assert heard[-2:] == ["signal", "signal"]
    finally:
        done.set()
        signal.signal(number, before)
