"""The maths: rules for one array, one family a file."""
