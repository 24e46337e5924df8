import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

from acme.core import grouped, money
from acme.models import Address, Customer, Line, Order, Payment, Product

T = TypeVar("T")

Row = Mapping[str, str]


def read_csv(path: Path, delimiter: str = ",") -> tuple[dict[str, str], ...]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return tuple(clean_row(row) for row in csv.DictReader(file, delimiter=delimiter))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def clean_row(row: Mapping[str | None, str | None]) -> dict[str, str]:
    return {snake(key): (value or "").strip() for key, value in row.items() if key}


def snake(text: str) -> str:
    return "_".join(text.strip().lower().replace("-", " ").split())


def decimal_of(text: str) -> Decimal:
    normal = text.replace(" ", "")
    if "," in normal:
        normal = normal.replace(".", "").replace(",", ".")
    try:
        return money(normal)
    except InvalidOperation:
        raise ValueError(f"not an amount: {text!r}") from None


def int_of(text: str, default: int = 0) -> int:
    return int(text) if text.strip() else default


def flag_of(text: str) -> bool:
    return text.strip().lower() in {"1", "y", "yes", "true", "x"}


def sniffed(text: str) -> str:
    head = text.splitlines()[0] if text else ""
    return max(",;\t|", key=head.count)


def product_of(row: Row) -> Product:
    return Product(
        sku=row["sku"],
        name=row["name"],
        price=decimal_of(row["price"]),
        weight=decimal_of(row.get("weight") or "0.50"),
        category=row.get("category") or "general",
        tax_class=row.get("tax_class") or "standard",
    )


def address_of(row: Row) -> Address | None:
    if not row.get("city"):
        return None
    return Address(row.get("street", ""), row["city"], row.get("postcode", ""), row.get("country") or "DE")


def customer_of(row: Row) -> Customer:
    return Customer(row["id"], row["name"], row["email"], date.fromisoformat(row["joined"]), address=address_of(row))


def line_of(row: Row) -> Line:
    return Line(row["sku"], int_of(row["qty"], 1), decimal_of(row["price"]))


def payment_of(row: Row) -> Payment:
    return Payment(row["id"], row["order_id"], decimal_of(row["amount"]), date.fromisoformat(row["paid"]))


def orders_of(rows: Iterable[Row]) -> tuple[Order, ...]:
    return tuple(
        Order(order_id, group[0]["customer_id"], date.fromisoformat(group[0]["placed"]), tuple(map(line_of, group)))
        for order_id, group in grouped(rows, lambda row: row["order_id"]).items()
    )


def attempt(parse: Callable[[Row], T], row: Row) -> T | str:
    try:
        return parse(row)
    except (KeyError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def load(rows: Iterable[Row], parse: Callable[[Row], T]) -> tuple[tuple[T, ...], dict[int, str]]:
    results = tuple(attempt(parse, row) for row in rows)
    good = tuple(result for result in results if not isinstance(result, str))
    return good, {n: result for n, result in enumerate(results, 2) if isinstance(result, str)}


def load_products(path: Path) -> tuple[Product, ...]:
    return load(read_csv(path), product_of)[0]


def load_customers(path: Path) -> tuple[Customer, ...]:
    return load(read_csv(path), customer_of)[0]


def load_orders(path: Path) -> tuple[Order, ...]:
    return orders_of(read_csv(path))


def load_payments(path: Path) -> tuple[Payment, ...]:
    return load(read_csv(path), payment_of)[0]
