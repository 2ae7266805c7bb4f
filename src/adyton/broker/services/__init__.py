"""The verifier and the reference value provider as services of their own, as Confidential Containers' clients know them."""
