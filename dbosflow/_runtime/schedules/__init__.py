"""Schedules: what is due, who starts it, and what code declares."""
