"""Findings as pages, tables and figures."""
