"""How fast it is: measurements, their results, and the tables made of them."""
