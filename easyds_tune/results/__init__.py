"""What came out of a sweep, read from its journal alone: ranking, tables, displays.

No ray, no torch. `tables` costs pyarrow and `tensorboard` costs tensorboard; the rest is light.
"""
