"""
Carriers, shipping costs and delivery times.
"""

from decimal import Decimal

from globex.catalog import build_product_index
from globex.dates import add_working_days
from globex.helpers import build_result_list
from globex.helpers import check_not_none
from globex.helpers import round_amount


class Carrier:
    """
    A company that brings parcels to customers.
    """

    def __init__(self, name, base_price, price_per_kilogram, delivery_days):
        """
        Create a new carrier.

        Args:
            name: The name of the carrier.
            base_price: The price of a parcel without its weight.
            price_per_kilogram: The price of each kilogram.
            delivery_days: The number of working days until the delivery.
        """
        self.name = name
        self.base_price = round_amount(base_price)
        self.price_per_kilogram = round_amount(price_per_kilogram)
        self.delivery_days = delivery_days
        self.largest_weight = Decimal("30")

    def get_name(self):
        """
        Return the name of the carrier.
        """
        return self.name

    def get_delivery_days(self):
        """
        Return the number of working days until the delivery.
        """
        return self.delivery_days

    def get_largest_weight(self):
        """
        Return the largest weight in kilograms that the carrier accepts.
        """
        return self.largest_weight

    def set_largest_weight(self, largest_weight):
        """
        Change the largest weight in kilograms that the carrier accepts.
        """
        check_not_none(largest_weight, "largest_weight")
        self.largest_weight = Decimal(largest_weight)

    def get_price(self, weight):
        """
        Return the price of a parcel with a certain weight.

        Args:
            weight: The weight of the parcel in kilograms.

        Returns:
            The price with two decimal places.
        """
        weight_price = self.price_per_kilogram * weight
        price = self.base_price + weight_price
        return round_amount(price)


def calculate_order_weight(order, products):
    """
    Calculate the weight of all units of an order.

    Args:
        order: The order to look at.
        products: The list of all products.

    Returns:
        The weight in kilograms.

    Raises:
        ValueError: If the order or the products are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(order, "order")
    check_not_none(products, "products")

    # Multiply the weight by the quantity for each line.
    index = build_product_index(products)
    total_weight = Decimal("0")
    for line in order.get_lines():
        sku = line.get_sku()
        if sku not in index:
            continue
        line_weight = index[sku].get_weight() * line.get_quantity()
        total_weight = total_weight + line_weight

    return total_weight


def find_cheapest_carrier(carriers, weight):
    """
    Find the carrier that brings a parcel at the lowest price.

    Args:
        carriers: The list of carriers to compare.
        weight: The weight of the parcel in kilograms.

    Returns:
        The cheapest carrier, or None if the parcel is too heavy for all.

    Raises:
        ValueError: If the carriers or the weight are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(carriers, "carriers")
    check_not_none(weight, "weight")

    # Remember the best carrier that we have seen so far.
    cheapest_carrier = None
    for carrier in carriers:
        if weight > carrier.get_largest_weight():
            continue
        if cheapest_carrier is None:
            cheapest_carrier = carrier
        elif carrier.get_price(weight) < cheapest_carrier.get_price(weight):
            cheapest_carrier = carrier

    return cheapest_carrier


def calculate_shipping_cost(order, carrier, weight, free_from=None):
    """
    Calculate what the customer has to pay for the shipping of an order.

    Args:
        order: The order that is shipped.
        carrier: The carrier that brings the parcel.
        weight: The weight of the parcel in kilograms.
        free_from: The total from which shipping is free, or None.

    Returns:
        The cost with two decimal places.

    Raises:
        ValueError: If the order or the carrier is None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(order, "order")
    check_not_none(carrier, "carrier")

    # Large orders are shipped for free.
    if free_from is not None:
        if order.get_total() >= free_from:
            return Decimal("0.00")

    shipping_cost = carrier.get_price(weight)
    return shipping_cost


def get_late_shipments(shipments, carriers, today):
    """
    Find the shipments that arrived too late or should have arrived by now.

    Args:
        shipments: The list of shipments to search in.
        carriers: The list of all carriers.
        today: The date that is used for shipments that are on their way.

    Returns:
        A list of the late shipments.

    Raises:
        ValueError: If the shipments or the carriers are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(shipments, "shipments")
    check_not_none(carriers, "carriers")

    # Remember the delivery days of every carrier.
    delivery_days = {}
    for carrier in carriers:
        name = carrier.get_name()
        delivery_days[name] = carrier.get_delivery_days()

    # Compare the arrival with the day on which it was due.
    result_list = []
    for shipment in shipments:
        day_count = delivery_days[shipment.get_carrier_name()]
        due_date = add_working_days(shipment.get_shipped_on(), day_count)
        arrival_date = shipment.get_delivered_on()
        if arrival_date is None:
            arrival_date = today
        if arrival_date > due_date:
            result_list.append(shipment)

    return result_list


def get_unshipped_orders(orders, shipments):
    """
    Find the orders that were paid but have no shipment yet.

    Args:
        orders: The list of orders to search in.
        shipments: The list of all shipments.

    Returns:
        A list of the orders that have to be shipped.

    Raises:
        ValueError: If the orders or the shipments are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(orders, "orders")
    check_not_none(shipments, "shipments")

    # Collect every paid order that does not occur in a shipment.
    shipped_order_ids = build_result_list(shipments, "get_order_id")
    result_list = []
    for order in orders:
        if order.get_status() != "paid":
            continue
        if order.get_order_id() in shipped_order_ids:
            continue
        result_list.append(order)

    return result_list
