import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from itertools import chain, islice, repeat
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Sleep = Callable[[float], None]


class GaveUp(RuntimeError):
    pass


@dataclass(frozen=True, slots=True)
class Policy:
    tries: int = 4
    base: float = 0.1
    factor: float = 2.0
    cap: float = 5.0
    errors: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)

    def patient(self) -> "Policy":
        return replace(self, tries=self.tries * 2, cap=self.cap * 4)


def delays(policy: Policy) -> Iterator[float]:
    return (min(policy.cap, policy.base * policy.factor**n) for n in range(policy.tries - 1))


def jittered(waits: Iterable[float], rng: random.Random) -> Iterator[float]:
    return (rng.uniform(wait / 2, wait) for wait in waits)


def fixed(wait: float, tries: int) -> Iterator[float]:
    return islice(repeat(wait), max(0, tries - 1))


def longest(policy: Policy) -> float:
    return sum(delays(policy))


def retry(fn: Callable[[], T], policy: Policy = Policy(), sleep: Sleep = time.sleep) -> T:
    for wait in chain(delays(policy), (None,)):
        try:
            return fn()
        except policy.errors as error:
            if wait is None:
                raise GaveUp(f"gave up after {policy.tries} tries") from error
            sleep(wait)
    raise GaveUp("no tries allowed")


def retrying(policy: Policy = Policy(), sleep: Sleep = time.sleep) -> Callable[[Callable[P, T]], Callable[P, T]]:
    def wrap(fn: Callable[P, T]) -> Callable[P, T]:
        @wraps(fn)
        def inner(*args: P.args, **kwargs: P.kwargs) -> T:
            return retry(lambda: fn(*args, **kwargs), policy, sleep)

        return inner

    return wrap


def first_of(*makers: Callable[[], T], errors: tuple[type[Exception], ...] = (Exception,)) -> T:
    if not (found := next((result for make in makers if (result := attempt(make, errors))), ())):
        raise GaveUp(f"all {len(makers)} ways failed")
    return found[0]


def attempt(make: Callable[[], T], errors: tuple[type[Exception], ...]) -> tuple[T, ...]:
    try:
        return (make(),)
    except errors:
        return ()


def fallback(make: Callable[[], T], default: T, errors: tuple[type[Exception], ...] = (Exception,)) -> T:
    return next(iter(attempt(make, errors)), default)


@dataclass(frozen=True, slots=True)
class Breaker:
    limit: int = 5
    cool: float = 30.0
    failures: int = 0
    opened: float | None = None

    def allows(self, now: float) -> bool:
        return self.opened is None or now - self.opened >= self.cool

    def failed(self, now: float) -> "Breaker":
        count = self.failures + 1
        return replace(self, failures=count, opened=now if count >= self.limit else None)

    def passed(self) -> "Breaker":
        return replace(self, failures=0, opened=None)
