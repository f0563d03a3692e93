"""What we compare ourselves with, and how."""
