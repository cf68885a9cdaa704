"""Graphpost: an EmailEngine-compatible API for Microsoft 365 mailboxes over Microsoft Graph."""

__version__ = "0.1.0"
