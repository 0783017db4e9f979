"""How much of what should be found is found: on a quiet network, under churn and loss, and with lying holders."""
