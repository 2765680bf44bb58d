import contextlib
import os
import signal
import threading
import time

import pytest

from lexora_cli.interrupt import lasting_interrupt


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0)  # where the handler runs


def test_it_raises_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), lasting_interrupt():
        press()
    assert signal.getsignal(signal.SIGINT) is before


def test_one_that_was_swallowed_is_raised_again() -> None:
    with lasting_interrupt() as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):  # as the interpreter does in a destructor
            press()
        with pytest.raises(KeyboardInterrupt):
            check()


def test_another_thread_has_no_signals() -> None:
    done = []

    def work() -> None:
        with lasting_interrupt() as check:
            check()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
