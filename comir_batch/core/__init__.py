"""Vocabulary of the house: value types, protocols and errors that every room shares; imports no other room."""
