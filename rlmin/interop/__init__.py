"""Bridges to other libraries, one file each; a package is imported when its bridge is used."""
