"""How a workload gets into a TEE on this node: names the image, writes or checks the document, asks the platform.

It runs outside, as the operator. Nothing here is trusted: what it gets wrong, the agent inside refuses.
"""
