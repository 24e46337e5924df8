"""
Unit tests of the Globex back office.
"""
