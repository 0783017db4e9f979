"""The demonstration: a whole network on one machine, from an empty folder to a paid session in a real guest.

Real processes, sockets, money rules and guests; nothing here is a stand-in. `scripts/demo` runs it.
"""
