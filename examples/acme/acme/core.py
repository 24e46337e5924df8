from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import reduce
from itertools import islice, pairwise
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K", bound=Hashable)

CENT = Decimal("0.01")
ZERO = Decimal("0.00")


def pipe(value: Any, *steps: Callable[[Any], Any]) -> Any:
    return reduce(lambda acc, step: step(acc), steps, value)


def compose(*steps: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: pipe(value, *steps)


def money(value: Decimal | int | str) -> Decimal:
    return Decimal(value).quantize(CENT, rounding=ROUND_HALF_UP)


def total(amounts: Iterable[Decimal]) -> Decimal:
    return money(sum(amounts, ZERO))


def ratio(part: Decimal | int, whole: Decimal | int) -> Decimal:
    return money(Decimal(part) / Decimal(whole)) if whole else ZERO


def percent(amount: Decimal, rate: Decimal | int) -> Decimal:
    return money(amount * Decimal(rate) / 100)


def keyed(items: Iterable[T], key: Callable[[T], K]) -> dict[K, T]:
    return {key(item): item for item in items}


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, tuple[T, ...]]:
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return {k: tuple(group) for k, group in groups.items()}


def summed(items: Iterable[T], key: Callable[[T], K], amount: Callable[[T], Decimal]) -> dict[K, Decimal]:
    return {k: total(map(amount, group)) for k, group in grouped(items, key).items()}


def counted(items: Iterable[T], key: Callable[[T], K]) -> dict[K, int]:
    return {k: len(group) for k, group in grouped(items, key).items()}


def mapped(table: Mapping[K, T], fn: Callable[[T], U]) -> dict[K, U]:
    return {k: fn(v) for k, v in table.items()}


def where(table: Mapping[K, T], test: Callable[[T], bool]) -> dict[K, T]:
    return {k: v for k, v in table.items() if test(v)}


def first(items: Iterable[T], default: T | None = None) -> T | None:
    return next(iter(items), default)


def find(items: Iterable[T], test: Callable[[T], bool]) -> T | None:
    return next((item for item in items if test(item)), None)


def split(items: Iterable[T], test: Callable[[T], bool]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    groups = grouped(items, lambda item: bool(test(item)))
    return groups.get(True, ()), groups.get(False, ())


def chunks(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    source = iter(items)
    return iter(lambda: tuple(islice(source, size)), ())


def top(table: Mapping[K, Any], count: int) -> tuple[tuple[K, Any], ...]:
    return tuple(sorted(table.items(), key=lambda pair: (-pair[1], pair[0]))[:count])


def unique(items: Iterable[K]) -> tuple[K, ...]:
    return tuple(dict.fromkeys(items))


def is_sorted(items: Iterable[Any]) -> bool:
    return all(a <= b for a, b in pairwise(items))


def clamp(value: Decimal, low: Decimal, high: Decimal) -> Decimal:
    return max(low, min(value, high))


def allocate(amount: Decimal, weights: Iterable[Decimal | int]) -> tuple[Decimal, ...]:
    shares = tuple(Decimal(w) for w in weights)
    if not (whole := sum(shares)):
        return tuple(ZERO for _ in shares)
    parts = tuple(money(amount * share / whole) for share in shares)
    return (parts[0] + amount - sum(parts), *parts[1:])
