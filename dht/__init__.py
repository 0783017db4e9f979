"""Signed records on Kademlia DHTs, one DHT per attribute dimension. Knows keys and bytes, not servers or money."""
