"""Export: a policy for programs without rlmin, one file for each form, compared with the policy before it is
written.
"""
