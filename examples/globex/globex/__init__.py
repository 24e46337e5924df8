"""
The Globex back office.

This package contains everything that the back office needs in order to work
with orders, customers, stock, prices, invoices, payments and shipments.
"""
