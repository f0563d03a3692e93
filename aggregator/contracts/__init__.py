"""The contracts that producers build on: published, judged by, and never changed in a way that breaks somebody."""
