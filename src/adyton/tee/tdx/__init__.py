"""Intel TDX: quotes of trust domains, what they say, and what MRTD and the RTMRs must be."""
