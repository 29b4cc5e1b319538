"""Writers, extractors and the optimiser of one store, killed at random instants while readers look on.

``make torture`` runs it long, ``tests/feature_store/test_torture.py`` runs it short, both on a folder or an S3 address.
"""
