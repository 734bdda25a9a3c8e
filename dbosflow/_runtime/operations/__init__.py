"""What a workflow's body can do durably."""
