"""Each attack on the network that the design names, as a function of its size, and the test of its bar."""
