"""The platform's vocabulary: frozen types with their invariants, and their signed form.

Every type here that parties exchange is a :class:`~xenonode.model.message.Message`: it turns into
plain fields and back, and `dht.envelope` signs those fields. No type here does I/O or knows a clock.
"""
