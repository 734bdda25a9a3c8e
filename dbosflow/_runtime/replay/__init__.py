"""Branches of a workflow, and the delivery of outcomes in their recorded order."""
