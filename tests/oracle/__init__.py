"""Random programs with crashes, against what the same programs come to as plain functions."""
