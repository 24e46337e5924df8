"""
Discounts that make an order cheaper.

A discount is an object with a calculate method, which takes an order and
returns the amount that the customer saves.
"""

from decimal import Decimal

from globex.helpers import check_not_none
from globex.helpers import is_valid_value
from globex.helpers import round_amount


class PercentageDiscount:
    """
    A discount that takes a percentage off the total of an order.
    """

    def __init__(self, percentage):
        """
        Create a new percentage discount.

        Args:
            percentage: The percentage, which lies between 0 and 100.
        """
        self.percentage = Decimal(percentage)

    def get_percentage(self):
        """
        Return the percentage of the discount.
        """
        return self.percentage

    def calculate(self, order):
        """
        Calculate the amount that the customer saves.

        Args:
            order: The order that becomes cheaper.

        Returns:
            The amount with two decimal places.
        """
        total = order.get_total()
        amount = total * self.percentage / 100
        return round_amount(amount)


class Coupon:
    """
    A code that gives a percentage discount for a certain time.
    """

    def __init__(self, code, percentage, valid_from, valid_until):
        """
        Create a new coupon.

        Args:
            code: The code that the customer has to enter.
            percentage: The percentage of the discount.
            valid_from: The first date on which the coupon is valid.
            valid_until: The last date on which the coupon is valid.
        """
        self.code = code
        self.percentage = Decimal(percentage)
        self.valid_from = valid_from
        self.valid_until = valid_until

    def get_code(self):
        """
        Return the code that the customer has to enter.
        """
        return self.code

    def get_percentage(self):
        """
        Return the percentage of the discount.
        """
        return self.percentage

    def is_valid_on(self, day):
        """
        Decide whether the coupon is valid on a certain day.
        """
        if day < self.valid_from:
            return False
        if day > self.valid_until:
            return False
        return True


def calculate_coupon_discount(order, coupons):
    """
    Calculate the discount of the coupon that was entered for an order.

    Args:
        order: The order that becomes cheaper.
        coupons: The list of all coupons.

    Returns:
        The amount that the customer saves, which is zero without a coupon.

    Raises:
        ValueError: If the order or the coupons are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(order, "order")
    check_not_none(coupons, "coupons")

    # Nothing is saved if no coupon was entered.
    coupon_code = order.get_coupon_code()
    if not is_valid_value(coupon_code):
        return Decimal("0.00")

    # Look for the coupon and check that it is still valid.
    for coupon in coupons:
        if coupon.get_code() != coupon_code:
            continue
        if not coupon.is_valid_on(order.get_placed_on()):
            continue
        discount = PercentageDiscount(coupon.get_percentage())
        return discount.calculate(order)

    # The coupon does not exist or is not valid any more.
    return Decimal("0.00")


def calculate_free_units_discount(order, sku, bought_units, free_units):
    """
    Calculate the discount of an offer such as "buy two, get one free".

    Args:
        order: The order that becomes cheaper.
        sku: The stock number of the product in the offer.
        bought_units: The number of units that have to be paid.
        free_units: The number of units that are free afterwards.

    Returns:
        The amount that the customer saves.

    Raises:
        ValueError: If the order is None.
    """
    # Make sure that the order is usable before we start.
    check_not_none(order, "order")

    # Count the free units of each line that contains the product.
    total = Decimal("0.00")
    units_in_offer = bought_units + free_units
    for line in order.get_lines():
        if line.get_sku() != sku:
            continue
        complete_offers = line.get_quantity() // units_in_offer
        free_quantity = complete_offers * free_units
        total = total + free_quantity * line.get_unit_price()

    return round_amount(total)


def find_best_discount(order, discounts):
    """
    Find the discount that saves the largest amount for an order.

    Args:
        order: The order that becomes cheaper.
        discounts: The list of discounts to compare.

    Returns:
        The best discount, or None if no discount saves anything.

    Raises:
        ValueError: If the order or the discounts are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(order, "order")
    check_not_none(discounts, "discounts")

    # Remember the best discount that we have seen so far.
    best_discount = None
    best_amount = Decimal("0.00")
    for discount in discounts:
        amount = discount.calculate(order)
        if amount > best_amount:
            best_discount = discount
            best_amount = amount

    return best_discount


def calculate_discounted_total(order, discounts):
    """
    Calculate the total of an order after all discounts were taken off.

    Args:
        order: The order that becomes cheaper.
        discounts: The list of discounts that are all taken off.

    Returns:
        The remaining total, which is never negative.

    Raises:
        ValueError: If the order or the discounts are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(order, "order")
    check_not_none(discounts, "discounts")

    # Take off the discounts one by one.
    remaining_total = order.get_total()
    for discount in discounts:
        amount = discount.calculate(order)
        remaining_total = remaining_total - amount

    # The order must not become cheaper than free.
    if remaining_total < 0:
        remaining_total = Decimal("0.00")

    return remaining_total
