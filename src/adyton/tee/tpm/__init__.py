"""TPM 2.0: quotes, attestation keys, PCRs. Pure.

The names that other rooms use (Azure's vTPM, HyperEnclave):

* ``quote.verify_quote(message, signature, key, tee=...)``   a quote under a key that the caller trusts for other reasons
* ``quote.quoted_pcrs(quote, values, wanted=..., tee=...)``  the PCRs that the quote signs, and no others
* ``abi.PublicArea.parse`` and ``.key()``                    TPMT_PUBLIC, TPM2B_PUBLIC
* ``adyton.tee.eventlog``                                    logs, replayed against those PCRs
"""
