"""Inside the TEE, beside the workload: checks the document, proves what it is, gets keys, unpacks, runs.

It comes from the measured guest stack and is the first process of its instance. It believes what HOST_DATA covers and
nothing else that arrives; what the operator offers is taken only where the document allows it.
"""
