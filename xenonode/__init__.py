"""The XenoServer Open Platform: XenoServers, XenoCorp, clients and the simulator, on dht, summaries and hypervisor."""
