"""CoCo's ``sample`` evidence: anybody can write it, so it is parsed and never believed by default."""
