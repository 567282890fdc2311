"""Inspection: the memory of a trained policy in numbers, pictures and one HTML report.

attribution.py    which past step drove an action; recurrence.py: memories as the sums they are
time_scales.py    how long each unit remembers
lengths.py  delays.py  wipe.py    probes: an old memory, longer delays, an emptied memory
study.py          all of these, of one policy
report.py         the page: sentences.py, findings.py, *pictures.py
"""
