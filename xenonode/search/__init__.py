"""XenoSearch over the overlays: hold trie nodes, publish adverts, run queries.

Only wires `summaries`, which decides, to `dht`, which carries.
"""
