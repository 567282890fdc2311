"""Bridges to other libraries, one file each; a package is imported where its bridge is used."""
