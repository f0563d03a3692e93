"""What runs in Lambda: bundling.py is read first."""
