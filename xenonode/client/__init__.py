"""The client: a light query peer that searches, orders, opens sessions, checks what it is billed, and pays.

`Client` is what programs and the command line use.
"""

from xenonode.client.client import Client
from xenonode.client.operator import Operator
from xenonode.client.records import SessionView
from xenonode.client.servers import SignedQuote

__all__ = ["Client", "Operator", "SessionView", "SignedQuote"]
