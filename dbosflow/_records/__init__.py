"""How records are named: for the store, for the runtime, and for the tests of users."""
