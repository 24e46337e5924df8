"""
Functions that calculate the taxes of orders.
"""

from decimal import Decimal

from globex.catalog import build_product_index
from globex.helpers import add_to_total
from globex.helpers import check_not_none
from globex.helpers import get_value_or_default
from globex.helpers import round_amount

TAX_RATES = {
    "DE": {"standard": Decimal("19"), "reduced": Decimal("7")},
    "FR": {"standard": Decimal("20"), "reduced": Decimal("5.5")},
    "NL": {"standard": Decimal("21"), "reduced": Decimal("9")},
}


def get_tax_rate(country, tax_class):
    """
    Look up the tax rate of a country.

    Args:
        country: The two-letter code of the country.
        tax_class: The tax class, which is either standard or reduced.

    Returns:
        The tax rate as a percentage. It is zero for an unknown country.

    Raises:
        ValueError: If the tax class is not known in the country.
    """
    # We do not charge any tax in countries that we do not know.
    if country not in TAX_RATES:
        return Decimal("0")

    # The tax class must exist in the country.
    country_rates = TAX_RATES[country]
    if tax_class not in country_rates:
        raise ValueError("The tax class '" + str(tax_class) + "' is not known.")

    tax_rate = country_rates[tax_class]
    return tax_rate


def calculate_tax(net_amount, tax_rate):
    """
    Calculate the tax that has to be added to a net amount.

    Args:
        net_amount: The amount without tax.
        tax_rate: The tax rate as a percentage.

    Returns:
        The tax with two decimal places.

    Raises:
        ValueError: If the net amount or the tax rate is None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(net_amount, "net_amount")
    check_not_none(tax_rate, "tax_rate")

    tax = net_amount * tax_rate / 100
    rounded_tax = round_amount(tax)
    return rounded_tax


def calculate_net_amounts_by_rate(order, products, country):
    """
    Calculate the net amount of an order for each tax rate.

    Args:
        order: The order to look at.
        products: The list of all products.
        country: The two-letter code of the country of the customer.

    Returns:
        A dictionary that maps a tax rate to a net amount.

    Raises:
        ValueError: If the order or the products are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(order, "order")
    check_not_none(products, "products")

    # Add the amount of each line to the total of its tax rate.
    index = build_product_index(products)
    totals = {}
    for line in order.get_lines():
        product = get_value_or_default(index, line.get_sku(), None)
        if product is None:
            tax_class = "standard"
        else:
            tax_class = product.get_tax_class()
        tax_rate = get_tax_rate(country, tax_class)
        add_to_total(totals, tax_rate, line.get_amount())

    return totals


def calculate_order_tax(order, products, country):
    """
    Calculate the tax of an order.

    Args:
        order: The order to look at.
        products: The list of all products.
        country: The two-letter code of the country of the customer.

    Returns:
        The tax with two decimal places.

    Raises:
        ValueError: If the order or the products are None.
    """
    # The tax is rounded once for each tax rate and not for each line.
    net_amounts = calculate_net_amounts_by_rate(order, products, country)
    total_tax = Decimal("0.00")
    for tax_rate in net_amounts:
        tax = calculate_tax(net_amounts[tax_rate], tax_rate)
        total_tax = total_tax + tax

    return total_tax


def calculate_tax_by_country(orders, customers, products):
    """
    Calculate the tax that is owed in each country.

    Args:
        orders: The list of orders to look at.
        customers: The list of all customers.
        products: The list of all products.

    Returns:
        A dictionary that maps a country code to an amount of tax.

    Raises:
        ValueError: If the orders, the customers or the products are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(orders, "orders")
    check_not_none(customers, "customers")
    check_not_none(products, "products")

    # Remember the country of every customer, so that we can look it up quickly.
    countries = {}
    for customer in customers:
        customer_id = customer.get_customer_id()
        countries[customer_id] = customer.get_country()

    # Add the tax of each order to the total of its country.
    totals = {}
    for order in orders:
        country = get_value_or_default(countries, order.get_customer_id(), "DE")
        tax = calculate_order_tax(order, products, country)
        add_to_total(totals, country, tax)

    return totals
