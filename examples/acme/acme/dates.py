from calendar import monthrange
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from itertools import count, takewhile
from typing import TypeVar

from acme.core import grouped

T = TypeVar("T")

Span = tuple[date, date]


def days(start: date, end: date) -> Iterator[date]:
    return takewhile(lambda day: day <= end, (start + timedelta(days=n) for n in count()))


def month_start(day: date) -> date:
    return day.replace(day=1)


def month_end(day: date) -> date:
    return day.replace(day=monthrange(day.year, day.month)[1])


def month_span(year: int, month: int) -> Span:
    return date(year, month, 1), month_end(date(year, month, 1))


def quarter(day: date) -> int:
    return (day.month - 1) // 3 + 1


def quarter_span(year: int, number: int) -> Span:
    return date(year, number * 3 - 2, 1), month_end(date(year, number * 3, 1))


def year_span(year: int) -> Span:
    return date(year, 1, 1), date(year, 12, 31)


def month_key(day: date) -> str:
    return f"{day:%Y-%m}"


def week_key(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02d}"


def quarter_key(day: date) -> str:
    return f"{day.year}-Q{quarter(day)}"


def add_months(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def months_between(start: date, end: date) -> int:
    return (end.year - start.year) * 12 + end.month - start.month - (end.day < start.day)


def is_workday(day: date, holidays: frozenset[date] = frozenset()) -> bool:
    return day.weekday() < 5 and day not in holidays


def next_workday(day: date, holidays: frozenset[date] = frozenset()) -> date:
    return next(d for d in (day + timedelta(days=n) for n in count(1)) if is_workday(d, holidays))


def add_workdays(day: date, number: int, holidays: frozenset[date] = frozenset()) -> date:
    return day if number <= 0 else add_workdays(next_workday(day, holidays), number - 1, holidays)


def workdays(start: date, end: date, holidays: frozenset[date] = frozenset()) -> int:
    return sum(is_workday(day, holidays) for day in days(start, end))


def overlap(a: Span, b: Span) -> int:
    return max(0, (min(a[1], b[1]) - max(a[0], b[0])).days + 1)


def inside(day: date, span: Span) -> bool:
    return span[0] <= day <= span[1]


def by_month(items: Iterable[T], when: Callable[[T], date]) -> dict[str, tuple[T, ...]]:
    return dict(sorted(grouped(items, lambda item: month_key(when(item))).items()))


def by_week(items: Iterable[T], when: Callable[[T], date]) -> dict[str, tuple[T, ...]]:
    return dict(sorted(grouped(items, lambda item: week_key(when(item))).items()))


def month_keys(start: date, end: date) -> tuple[str, ...]:
    steps = range(months_between(month_start(start), month_start(end)) + 1)
    return tuple(month_key(add_months(month_start(start), n)) for n in steps)


def parse_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        return None


def age_bucket(age: int, edges: tuple[int, ...] = (30, 60, 90)) -> str:
    low = max((edge for edge in edges if age > edge), default=0)
    high = min((edge for edge in edges if age <= edge), default=None)
    return f"{low}-{high}" if high else f"{low}+"
