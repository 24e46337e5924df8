import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from acme.core import ZERO, counted, grouped, keyed, percent, unique
from acme.models import Product

SKU = re.compile(r"^[A-Z]{2,4}-\d{3,6}$")
WORD = re.compile(r"[a-z0-9]+")


def is_sku(text: str) -> bool:
    return SKU.match(text) is not None


def normal_sku(text: str) -> str:
    return text.strip().upper().replace("_", "-").replace(" ", "-")


def products_by_sku(products: Iterable[Product]) -> dict[str, Product]:
    return keyed(products, lambda product: product.sku)


def products_by_category(products: Iterable[Product]) -> dict[str, tuple[Product, ...]]:
    return grouped(products, lambda product: product.category)


def categories(products: Iterable[Product]) -> tuple[str, ...]:
    return unique(sorted(product.category for product in products))


def category_sizes(products: Iterable[Product]) -> dict[str, int]:
    return counted(products, lambda product: product.category)


def price_range(products: Iterable[Product]) -> tuple[Decimal, Decimal]:
    prices = sorted(product.price for product in products)
    return (prices[0], prices[-1]) if prices else (ZERO, ZERO)


def cheapest(products: Iterable[Product], category: str) -> Product | None:
    matches = (product for product in products if product.category == category)
    return min(matches, key=lambda product: product.price, default=None)


def priced_between(products: Iterable[Product], low: Decimal, high: Decimal) -> tuple[Product, ...]:
    return tuple(product for product in products if low <= product.price <= high)


def words(text: str) -> frozenset[str]:
    return frozenset(WORD.findall(text.lower()))


def score(product: Product, query: str) -> float:
    wanted = words(query)
    return len(wanted & words(f"{product.name} {product.category}")) / len(wanted) if wanted else 0.0


def search(products: Iterable[Product], query: str, limit: int = 10) -> tuple[Product, ...]:
    hits = ((score(product, query), product) for product in products)
    ranked = sorted((hit for hit in hits if hit[0] > 0), key=lambda hit: (-hit[0], hit[1].sku))
    return tuple(product for _, product in ranked[:limit])


def repriced(products: Iterable[Product], rate: Decimal, category: str | None = None) -> tuple[Product, ...]:
    return tuple(
        replace(p, price=p.price + percent(p.price, rate)) if category in (None, p.category) else p
        for p in products
    )


def renamed_category(products: Iterable[Product], old: str, new: str) -> tuple[Product, ...]:
    return tuple(replace(p, category=new) if p.category == old else p for p in products)


def missing_skus(products: Iterable[Product], skus: Iterable[str]) -> tuple[str, ...]:
    known = {product.sku for product in products}
    return tuple(sku for sku in unique(skus) if sku not in known)


def price_changes(old: Iterable[Product], new: Iterable[Product]) -> dict[str, Decimal]:
    before = products_by_sku(old)
    return {p.sku: p.price - before[p.sku].price for p in new if p.sku in before and p.price != before[p.sku].price}


def similar(products: Iterable[Product], product: Product, limit: int = 5) -> tuple[Product, ...]:
    others = (p for p in products if p.sku != product.sku and p.category == product.category)
    return tuple(sorted(others, key=lambda p: abs(p.price - product.price))[:limit])


def next_sku(products: Iterable[Product], prefix: str) -> str:
    numbers = (int(p.sku.rpartition("-")[2]) for p in products if p.sku.startswith(f"{prefix}-"))
    return f"{prefix}-{max(numbers, default=0) + 1:04d}"


def translated(products: Iterable[Product], names: Mapping[str, str]) -> tuple[Product, ...]:
    return tuple(replace(p, name=names.get(p.sku, p.name)) for p in products)
