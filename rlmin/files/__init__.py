"""Files that appear whole or not at all, and text from strangers read as data: locks, YAML, JSON, names that may
import code.
"""
