"""Examples of the documentation; tests run them."""
