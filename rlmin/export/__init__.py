"""Export: a policy for programs without rlmin, one file a form, each compared with the policy before it is
written.
"""
