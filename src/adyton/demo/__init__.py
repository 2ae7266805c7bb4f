"""The story that ``adyton demo`` plays: real parts, a real image, and refusals that are really refused.

``story`` is the order of events, ``parts`` starts and ends the programs, ``sample_image`` builds the owner's image,
``scan`` looks for plaintext, ``network`` is the untrusted wire that records what passes, ``screen`` prints.
"""
