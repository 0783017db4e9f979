"""XenoServer: what a server does with sessions.

`admission` says what fits, `session_core` what happens next, `metering` what was used, `journal` what survives
a crash, `audit_log` what can be proved later, `advertising` what the world is told. `sessions` is the driver
that carries their decisions to the hypervisor and to XenoCorp, and `service` answers control connections.
"""
