"""Control connections: request and reply between members who have proved their keys to one another.

What is larger than a datagram, or private, or about money goes here. `server.serve` answers, `client.connect` asks;
a `Transport` proves who is at the other end: mutual TLS 1.3 live (`tls_transport`), a signed hello in simulation
(`hello`). Everything above the transport is the same code.
"""
