"""What things cost: variants that take turns in one process.

The modules are imported one by one, as some need TensorFlow.
"""
