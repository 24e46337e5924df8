"""
The classes that describe customers, products, orders, payments and shipments.

Every class keeps its data in attributes and offers methods to get them. Where
a value may change later there is also a method to set it, which checks the
new value first.
"""

from decimal import Decimal

from globex.helpers import check_not_none
from globex.helpers import check_positive
from globex.helpers import is_valid_value
from globex.helpers import round_amount

ALLOWED_STATUSES = ["open", "paid", "shipped", "closed", "cancelled"]


class Customer:
    """
    A person or company that places orders.
    """

    def __init__(self, customer_id, name, email, joined_on, country="DE"):
        """
        Create a new customer.

        Args:
            customer_id: The unique identifier of the customer.
            name: The full name of the customer.
            email: The email address of the customer.
            joined_on: The date on which the customer was first known.
            country: The two-letter code of the country of the customer.
        """
        self.customer_id = customer_id
        self.name = name
        self.email = email
        self.joined_on = joined_on
        self.country = country
        self.level = "standard"

    def get_customer_id(self):
        """
        Return the unique identifier of the customer.
        """
        return self.customer_id

    def get_name(self):
        """
        Return the full name of the customer.
        """
        return self.name

    def get_email(self):
        """
        Return the email address of the customer.
        """
        return self.email

    def get_joined_on(self):
        """
        Return the date on which the customer was first known.
        """
        return self.joined_on

    def get_country(self):
        """
        Return the two-letter code of the country of the customer.
        """
        return self.country

    def get_level(self):
        """
        Return the level of the customer, which decides about discounts.
        """
        return self.level

    def set_level(self, level):
        """
        Change the level of the customer.

        Args:
            level: The new level. It must not be empty.

        Raises:
            ValueError: If the level is empty.
        """
        # Refuse an empty level, because discounts depend on it.
        if not is_valid_value(level):
            raise ValueError("The level of a customer must not be empty.")

        self.level = level


class Product:
    """
    An article that can be bought and kept in stock.
    """

    def __init__(self, sku, name, price, weight, category, tax_class="standard"):
        """
        Create a new product.

        Args:
            sku: The stock number of the product.
            name: The name that customers see.
            price: The price of one unit without tax.
            weight: The weight of one unit in kilograms.
            category: The name of the category of the product.
            tax_class: The tax class, which is either standard or reduced.
        """
        self.sku = sku
        self.name = name
        self.price = round_amount(price)
        self.weight = Decimal(weight)
        self.category = category
        self.tax_class = tax_class

    def get_sku(self):
        """
        Return the stock number of the product.
        """
        return self.sku

    def get_name(self):
        """
        Return the name that customers see.
        """
        return self.name

    def get_price(self):
        """
        Return the price of one unit without tax.
        """
        return self.price

    def set_price(self, price):
        """
        Change the price of one unit.

        Args:
            price: The new price. It must be greater than zero.

        Raises:
            ValueError: If the price is None, zero or negative.
        """
        check_positive(price, "price")
        self.price = round_amount(price)

    def get_weight(self):
        """
        Return the weight of one unit in kilograms.
        """
        return self.weight

    def get_category(self):
        """
        Return the name of the category of the product.
        """
        return self.category

    def get_tax_class(self):
        """
        Return the tax class of the product.
        """
        return self.tax_class


class OrderLine:
    """
    One line of an order, which is a product together with a quantity.
    """

    def __init__(self, sku, quantity, unit_price):
        """
        Create a new order line.

        Args:
            sku: The stock number of the product.
            quantity: The number of units.
            unit_price: The price of one unit at the time of the order.
        """
        self.sku = sku
        self.quantity = quantity
        self.unit_price = round_amount(unit_price)

    def get_sku(self):
        """
        Return the stock number of the product.
        """
        return self.sku

    def get_quantity(self):
        """
        Return the number of units.
        """
        return self.quantity

    def set_quantity(self, quantity):
        """
        Change the number of units.

        Args:
            quantity: The new number of units. It must be greater than zero.

        Raises:
            ValueError: If the quantity is None, zero or negative.
        """
        check_positive(quantity, "quantity")
        self.quantity = quantity

    def get_unit_price(self):
        """
        Return the price of one unit at the time of the order.
        """
        return self.unit_price

    def get_amount(self):
        """
        Return the quantity multiplied by the unit price.
        """
        amount = self.quantity * self.unit_price
        rounded_amount = round_amount(amount)
        return rounded_amount


class Order:
    """
    An order that a customer has placed on a certain day.
    """

    def __init__(self, order_id, customer_id, placed_on, status="open"):
        """
        Create a new order without any lines.

        Args:
            order_id: The unique identifier of the order.
            customer_id: The identifier of the customer who placed the order.
            placed_on: The date on which the order was placed.
            status: The status of the order.
        """
        self.order_id = order_id
        self.customer_id = customer_id
        self.placed_on = placed_on
        self.status = status
        self.coupon_code = None
        self.lines = []

    def get_order_id(self):
        """
        Return the unique identifier of the order.
        """
        return self.order_id

    def get_customer_id(self):
        """
        Return the identifier of the customer who placed the order.
        """
        return self.customer_id

    def get_placed_on(self):
        """
        Return the date on which the order was placed.
        """
        return self.placed_on

    def get_status(self):
        """
        Return the status of the order.
        """
        return self.status

    def set_status(self, status):
        """
        Change the status of the order.

        Args:
            status: The new status. It must be one of the allowed statuses.

        Raises:
            ValueError: If the status is not known.
        """
        # Refuse any status that we do not know.
        if status not in ALLOWED_STATUSES:
            raise ValueError("The status '" + str(status) + "' is not known.")

        self.status = status

    def get_coupon_code(self):
        """
        Return the code of the coupon, or None if there is no coupon.
        """
        return self.coupon_code

    def set_coupon_code(self, coupon_code):
        """
        Remember the code of the coupon that the customer entered.
        """
        self.coupon_code = coupon_code

    def get_lines(self):
        """
        Return the list of the lines of the order.
        """
        return self.lines

    def add_line(self, line):
        """
        Add one line to the end of the order.

        Args:
            line: The line that is added.

        Raises:
            ValueError: If the line is None.
        """
        check_not_none(line, "line")
        self.lines.append(line)

    def get_total(self):
        """
        Return the sum of the amounts of all lines.
        """
        # Start with zero and add every line one by one.
        total = Decimal("0.00")
        for line in self.lines:
            amount = line.get_amount()
            total = total + amount

        return total


class Payment:
    """
    An amount of money that was received for an order.
    """

    def __init__(self, payment_id, order_id, amount, paid_on, method="card"):
        """
        Create a new payment.

        Args:
            payment_id: The unique identifier of the payment.
            order_id: The identifier of the order that was paid.
            amount: The amount that was received.
            paid_on: The date on which the amount was received.
            method: The method, such as card, transfer or cash.
        """
        self.payment_id = payment_id
        self.order_id = order_id
        self.amount = round_amount(amount)
        self.paid_on = paid_on
        self.method = method

    def get_payment_id(self):
        """
        Return the unique identifier of the payment.
        """
        return self.payment_id

    def get_order_id(self):
        """
        Return the identifier of the order that was paid.
        """
        return self.order_id

    def get_amount(self):
        """
        Return the amount that was received.
        """
        return self.amount

    def get_paid_on(self):
        """
        Return the date on which the amount was received.
        """
        return self.paid_on

    def get_method(self):
        """
        Return the method of the payment.
        """
        return self.method


class Shipment:
    """
    A parcel that was handed over to a carrier for an order.
    """

    def __init__(self, shipment_id, order_id, carrier_name, shipped_on):
        """
        Create a new shipment that has not been delivered yet.

        Args:
            shipment_id: The unique identifier of the shipment.
            order_id: The identifier of the order inside the parcel.
            carrier_name: The name of the carrier.
            shipped_on: The date on which the parcel was handed over.
        """
        self.shipment_id = shipment_id
        self.order_id = order_id
        self.carrier_name = carrier_name
        self.shipped_on = shipped_on
        self.delivered_on = None

    def get_shipment_id(self):
        """
        Return the unique identifier of the shipment.
        """
        return self.shipment_id

    def get_order_id(self):
        """
        Return the identifier of the order inside the parcel.
        """
        return self.order_id

    def get_carrier_name(self):
        """
        Return the name of the carrier.
        """
        return self.carrier_name

    def get_shipped_on(self):
        """
        Return the date on which the parcel was handed over.
        """
        return self.shipped_on

    def get_delivered_on(self):
        """
        Return the date of the delivery, or None if it is still on its way.
        """
        return self.delivered_on

    def set_delivered_on(self, delivered_on):
        """
        Remember the date of the delivery.

        Args:
            delivered_on: The date on which the parcel arrived.

        Raises:
            ValueError: If the parcel would arrive before it was handed over.
        """
        check_not_none(delivered_on, "delivered_on")

        # A parcel cannot arrive before it has been handed over.
        if delivered_on < self.shipped_on:
            raise ValueError("The delivery must not be before the shipment.")

        self.delivered_on = delivered_on
