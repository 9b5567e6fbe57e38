"""Figures and tables of fronts, profiles and widths."""
