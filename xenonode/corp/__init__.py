"""XenoCorp, the trusted third party: members, credentials, the ledger, orders, claims.

Pure parts decide (`transfers`, `orders`, `claims`, `settling`, `leases`, `audit`); `store` makes decisions
durable; `service` answers control methods. XenoCorp is never on the path of a search or of a running session.
"""
