"""Web functions: requests from outside to containers, and back."""
