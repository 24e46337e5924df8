"""
Functions and classes that decide about prices.
"""

from globex.helpers import check_not_none
from globex.helpers import check_positive
from globex.helpers import round_amount


class PriceEntry:
    """
    A price of a product that is valid for a certain time.
    """

    def __init__(self, sku, price, valid_from, valid_until=None):
        """
        Create a new price entry.

        Args:
            sku: The stock number of the product.
            price: The price of one unit.
            valid_from: The first date on which the price is valid.
            valid_until: The last date, or None if there is no last date.
        """
        self.sku = sku
        self.price = round_amount(price)
        self.valid_from = valid_from
        self.valid_until = valid_until

    def get_sku(self):
        """
        Return the stock number of the product.
        """
        return self.sku

    def get_price(self):
        """
        Return the price of one unit.
        """
        return self.price

    def get_valid_from(self):
        """
        Return the first date on which the price is valid.
        """
        return self.valid_from

    def is_valid_on(self, day):
        """
        Decide whether the price is valid on a certain day.

        Args:
            day: The day to look at.

        Returns:
            True if the price is valid on that day, otherwise False.
        """
        # The price is not valid before the first date.
        if day < self.valid_from:
            return False

        # The price is not valid after the last date, if there is one.
        if self.valid_until is not None:
            if day > self.valid_until:
                return False

        return True


def find_price_on(price_entries, sku, day):
    """
    Find the price of a product on a certain day.

    Args:
        price_entries: The list of price entries to search in.
        sku: The stock number of the product.
        day: The day on which the price should be valid.

    Returns:
        The price of the newest valid entry, or None if there is no entry.

    Raises:
        ValueError: If the price entries are None.
    """
    # Make sure that the price entries are usable before we start.
    check_not_none(price_entries, "price_entries")

    # Remember the newest entry that is valid on that day.
    best_entry = None
    for entry in price_entries:
        if entry.get_sku() != sku:
            continue
        if not entry.is_valid_on(day):
            continue
        if best_entry is None:
            best_entry = entry
        elif entry.get_valid_from() > best_entry.get_valid_from():
            best_entry = entry

    # There may be no entry at all.
    if best_entry is None:
        return None

    return best_entry.get_price()


def find_quantity_price(price_steps, quantity, base_price):
    """
    Find the unit price for a quantity when larger quantities are cheaper.

    Args:
        price_steps: A dictionary that maps a smallest quantity to a price.
        quantity: The number of units that are bought.
        base_price: The price that is used below the first step.

    Returns:
        The price of one unit.

    Raises:
        ValueError: If the price steps are None or the quantity is not positive.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(price_steps, "price_steps")
    check_positive(quantity, "quantity")

    # Go through the steps from the smallest to the largest quantity.
    unit_price = base_price
    for step_quantity in sorted(price_steps):
        if quantity >= step_quantity:
            unit_price = price_steps[step_quantity]

    return unit_price


def convert_currency(amount, exchange_rates, source_currency, target_currency):
    """
    Convert an amount of money from one currency into another currency.

    Args:
        amount: The amount in the source currency.
        exchange_rates: A dictionary that maps a currency to its rate.
        source_currency: The code of the currency of the amount.
        target_currency: The code of the currency of the result.

    Returns:
        The amount in the target currency with two decimal places.

    Raises:
        ValueError: If the amount is None or if a currency is not known.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(amount, "amount")
    for currency in [source_currency, target_currency]:
        if currency not in exchange_rates:
            raise ValueError("The currency '" + str(currency) + "' is not known.")

    # Nothing has to be done if both currencies are the same.
    if source_currency == target_currency:
        return round_amount(amount)

    # Convert into the base currency first and then into the target currency.
    base_amount = amount / exchange_rates[source_currency]
    target_amount = base_amount * exchange_rates[target_currency]
    return round_amount(target_amount)
