import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from acme.core import mapped
from acme.models import Customer, Order, Payment, Product


def plain(value: Any) -> Any:
    match value:
        case Decimal():
            return str(value)
        case date():
            return value.isoformat()
        case dict():
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return plain(asdict(value))
        case _:
            return value


def to_json(value: Any, indent: int | None = 2) -> str:
    return json.dumps(plain(value), indent=indent, sort_keys=True, ensure_ascii=False)


def to_jsonl(items: Iterable[Any]) -> str:
    return "".join(f"{to_json(item, indent=None)}\n" for item in items)


def header(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for row in rows for key in row))


def to_csv(rows: Iterable[Mapping[str, Any]], delimiter: str = ",") -> str:
    batch = tuple(mapped(row, plain) for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, header(batch), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(batch)
    return out.getvalue()


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        name: leaf
        for key, item in value.items()
        for name, leaf in (flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}).items()
    }


def product_row(product: Product) -> dict[str, Any]:
    return {field.name: getattr(product, field.name) for field in fields(product)}


def order_row(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "customer_id": order.customer_id,
        "placed": order.placed,
        "status": order.status,
        "units": order.units,
        "total": order.total,
    }


def line_rows(order: Order) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"order_id": order.id, "sku": line.sku, "qty": line.qty, "price": line.price, "amount": line.amount}
        for line in order.lines
    )


def customer_row(customer: Customer) -> dict[str, Any]:
    return {"id": customer.id, "name": customer.name, "email": customer.email, "country": customer.country}


def ledger_row(payment: Payment) -> dict[str, Any]:
    return {"date": payment.paid, "ref": payment.order_id, "account": payment.method, "amount": payment.amount}


def orders_csv(orders: Iterable[Order]) -> str:
    return to_csv(order_row(order) for order in orders)


def lines_csv(orders: Iterable[Order]) -> str:
    return to_csv(row for order in orders for row in line_rows(order))


def customers_csv(customers: Iterable[Customer]) -> str:
    return to_csv(customer_row(customer) for customer in customers)


def series_csv(series: Mapping[str, Decimal], key: str = "period", value: str = "amount") -> str:
    return to_csv({key: k, value: v} for k, v in series.items())


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    batch = tuple(rows)
    names = header(batch)
    lines = (" | ".join(str(plain(row.get(name, ""))) for name in names) for row in batch)
    return "\n".join(f"| {line} |" for line in (" | ".join(names), " | ".join("---" for _ in names), *lines))


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_parts(folder: Path, parts: Mapping[str, str]) -> tuple[Path, ...]:
    return tuple(write_text(folder / name, text) for name, text in sorted(parts.items()))
