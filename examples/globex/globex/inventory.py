"""
The inventory, which knows how many units of each product are in stock.
"""

from decimal import Decimal

from globex.helpers import add_to_total
from globex.helpers import check_not_none
from globex.helpers import check_positive
from globex.helpers import get_value_or_default
from globex.helpers import round_amount


class Inventory:
    """
    The number of units of each product in one warehouse.
    """

    def __init__(self, warehouse_name):
        """
        Create an empty inventory.

        Args:
            warehouse_name: The name of the warehouse.
        """
        self.warehouse_name = warehouse_name
        self.quantities = {}
        self.movements = []

    def get_warehouse_name(self):
        """
        Return the name of the warehouse.
        """
        return self.warehouse_name

    def get_movements(self):
        """
        Return the list of all movements as tuples of stock number and change.
        """
        return self.movements

    def get_quantity(self, sku):
        """
        Return the number of units of a product, or zero if it is not known.

        Args:
            sku: The stock number of the product.

        Returns:
            The number of units in stock.
        """
        quantity = get_value_or_default(self.quantities, sku, 0)
        return quantity

    def set_quantity(self, sku, quantity):
        """
        Set the number of units after the warehouse has been counted.

        Args:
            sku: The stock number of the product.
            quantity: The number of units that were counted.

        Raises:
            ValueError: If the quantity is None or negative.
        """
        check_not_none(quantity, "quantity")
        if quantity < 0:
            raise ValueError("The quantity must not be negative.")

        # Remember the difference, so that the count can be explained later.
        difference = quantity - self.get_quantity(sku)
        self.quantities[sku] = quantity
        self.movements.append((sku, difference))

    def add_units(self, sku, quantity):
        """
        Add units of a product to the stock.

        Args:
            sku: The stock number of the product.
            quantity: The number of units that are added.

        Raises:
            ValueError: If the quantity is not greater than zero.
        """
        check_positive(quantity, "quantity")
        add_to_total(self.quantities, sku, quantity)
        self.movements.append((sku, quantity))

    def remove_units(self, sku, quantity):
        """
        Remove units of a product from the stock.

        Args:
            sku: The stock number of the product.
            quantity: The number of units that are removed.

        Raises:
            ValueError: If there are not enough units in stock.
        """
        check_positive(quantity, "quantity")

        # Refuse to remove more units than there are.
        available_quantity = self.get_quantity(sku)
        if quantity > available_quantity:
            raise ValueError("There are not enough units of '" + sku + "' in stock.")

        self.quantities[sku] = available_quantity - quantity
        self.movements.append((sku, -quantity))


def calculate_demand(orders):
    """
    Calculate how many units of each product are needed for open orders.

    Args:
        orders: The list of orders to look at.

    Returns:
        A dictionary that maps a stock number to a number of units.

    Raises:
        ValueError: If the orders are None.
    """
    # Make sure that the orders are usable before we start.
    check_not_none(orders, "orders")

    # Only orders that have not been shipped still need units.
    totals = {}
    for order in orders:
        if order.get_status() not in ["open", "paid"]:
            continue
        for line in order.get_lines():
            add_to_total(totals, line.get_sku(), line.get_quantity())

    return totals


def find_shortages(inventory, orders):
    """
    Find the products of which there are not enough units in stock.

    Args:
        inventory: The inventory of the warehouse.
        orders: The list of orders that should be shipped.

    Returns:
        A dictionary that maps a stock number to the number of missing units.

    Raises:
        ValueError: If the inventory or the orders are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(inventory, "inventory")
    check_not_none(orders, "orders")

    # Compare the demand with the stock for each product.
    shortages = {}
    demand = calculate_demand(orders)
    for sku in demand:
        needed_quantity = demand[sku]
        available_quantity = inventory.get_quantity(sku)
        if needed_quantity > available_quantity:
            shortages[sku] = needed_quantity - available_quantity

    return shortages


def can_ship_order(inventory, order):
    """
    Decide whether there are enough units in stock to ship an order.

    Args:
        inventory: The inventory of the warehouse.
        order: The order that should be shipped.

    Returns:
        True if every line of the order can be shipped, otherwise False.

    Raises:
        ValueError: If the inventory or the order is None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(inventory, "inventory")
    check_not_none(order, "order")

    # Add up the lines first, because a product may occur more than once.
    needed_quantities = {}
    for line in order.get_lines():
        add_to_total(needed_quantities, line.get_sku(), line.get_quantity())

    # A single product with too few units is enough to say no.
    for sku in needed_quantities:
        if needed_quantities[sku] > inventory.get_quantity(sku):
            return False

    return True


def ship_orders(inventory, orders):
    """
    Take the units of as many orders as possible out of the stock.

    Args:
        inventory: The inventory that is changed in place.
        orders: The list of orders. Older orders are shipped first.

    Returns:
        A list of the orders that could be shipped.

    Raises:
        ValueError: If the inventory or the orders are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(inventory, "inventory")
    check_not_none(orders, "orders")

    # Sort the orders by date, so that the oldest order comes first.
    pairs = []
    for position, order in enumerate(orders):
        pairs.append((order.get_placed_on(), position, order))
    pairs.sort()

    # Ship each order for which there are enough units.
    result_list = []
    for pair in pairs:
        order = pair[2]
        if not can_ship_order(inventory, order):
            continue
        for line in order.get_lines():
            inventory.remove_units(line.get_sku(), line.get_quantity())
        result_list.append(order)

    return result_list


def calculate_stock_value(inventory, products):
    """
    Calculate the value of all units in stock.

    Args:
        inventory: The inventory of the warehouse.
        products: The list of all products.

    Returns:
        The value as a Decimal with two decimal places.

    Raises:
        ValueError: If the inventory or the products are None.
    """
    # Make sure that the arguments are usable before we start.
    check_not_none(inventory, "inventory")
    check_not_none(products, "products")

    # Multiply the price by the number of units for each product.
    total = Decimal("0.00")
    for product in products:
        quantity = inventory.get_quantity(product.get_sku())
        product_value = product.get_price() * quantity
        total = total + product_value

    return round_amount(total)
