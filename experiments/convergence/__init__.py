"""Theorem 1 of Yuan et al. (VLDB 2022), measured against its bound."""
