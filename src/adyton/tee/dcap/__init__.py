"""Intel DCAP, for SGX and TDX alike: quotes, PCK certificates, collateral, TCB levels, and the checks over them. Pure."""
