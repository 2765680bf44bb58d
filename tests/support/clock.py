"""An event loop whose clock jumps to the next timer when nothing else is left to do, so that hours pass in no time."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: what it would have waited is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and no timer is left to end it")
        self.now += max(timeout, 0.0)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 1000 s and stands still while there is work; for tests without real I/O."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


Arguments = ParamSpec("Arguments")


def jumping(test: Callable[Arguments, Coroutine[Any, Any, None]]) -> Callable[Arguments, None]:
    """Run an asynchronous test on a JumpingLoop; tasks that it leaves behind fail it."""

    @functools.wraps(test)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(_alone(test(*args, **kwargs)))

    return run


def now() -> float:
    """The running loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


async def _alone(test: Coroutine[Any, Any, None]) -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    await test
    assert not errors, f"a callback failed: {errors}"
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
