"""Claims × reference values × policy → attestation result. Pure: what runs a policy is on floor 4.

Appraising never refuses evidence: it says how good it is, and everything that is not as it must be. What is raised here,
``PolicyInvalid``, is about the policy.
"""
