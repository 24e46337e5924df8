import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    value: V
    expires: float

    def fresh(self, now: float) -> bool:
        return now < self.expires


@dataclass(frozen=True, slots=True)
class Stats:
    hits: int = 0
    misses: int = 0

    @property
    def rate(self) -> float:
        return self.hits / seen if (seen := self.hits + self.misses) else 0.0

    def hit(self) -> "Stats":
        return Stats(self.hits + 1, self.misses)

    def miss(self) -> "Stats":
        return Stats(self.hits, self.misses + 1)


@dataclass(slots=True)
class Cache(Generic[V]):
    size: int = 256
    ttl: float = 60.0
    clock: Clock = time.monotonic
    stats: Stats = Stats()
    entries: OrderedDict[Hashable, Entry[V]] = field(default_factory=OrderedDict)

    def get(self, key: Hashable) -> V | None:
        entry = self.entries.get(key)
        if entry is None or not entry.fresh(self.clock()):
            self.stats = self.stats.miss()
            return None
        self.stats = self.stats.hit()
        self.entries.move_to_end(key)
        return entry.value

    def put(self, key: Hashable, value: V) -> V:
        self.entries[key] = Entry(value, self.clock() + self.ttl)
        self.entries.move_to_end(key)
        while len(self.entries) > self.size:
            self.entries.popitem(last=False)
        return value

    def drop(self, test: Callable[[Hashable], bool]) -> int:
        stale = tuple(key for key in self.entries if test(key))
        return sum(self.entries.pop(key, None) is not None for key in stale)

    def sweep(self) -> int:
        now = self.clock()
        return self.drop(lambda key: not self.entries[key].fresh(now))

    def get_or(self, key: Hashable, make: Callable[[], V]) -> V:
        found = self.get(key)
        return self.put(key, make()) if found is None else found


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    return args, tuple(sorted(kwargs.items()))


def cached(cache: Cache[T]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    def wrap(fn: Callable[P, T]) -> Callable[P, T]:
        @wraps(fn)
        def inner(*args: P.args, **kwargs: P.kwargs) -> T:
            return cache.get_or((fn.__name__, call_key(args, kwargs)), lambda: fn(*args, **kwargs))

        return inner

    return wrap


def once(make: Callable[[], T]) -> Callable[[], T]:
    return lru_cache(maxsize=1)(make)
