"""What makes and runs the package that Lambda gets; nothing of this runs in Lambda."""
