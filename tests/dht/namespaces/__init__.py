"""Two hosts with network stacks of their own, and a bad wire between them."""
