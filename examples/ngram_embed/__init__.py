# Marks this folder as a Python package, so that Granary and the tests can import it by name.
