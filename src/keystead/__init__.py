"""Keystead: customer-controlled encryption for services that hold other people's data."""

__version__ = "0.1.0"
