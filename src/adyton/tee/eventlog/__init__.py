"""Event logs of firmware, boot loaders and kernels: read, replay, explain. Pure; used by every TEE that has registers.

The names that other rooms use (each module says what it refuses):

* ``log.EventLog.parse(data)``                       TCG 1.2 and crypto-agile logs, CC event logs included
* ``replay.replay(log, bank)``                       register -> value, as the log says
* ``replay.check(log, bank, quoted, tee=...)``       the log leads to the quoted values, or a named first difference
* ``ccel.check_rtmrs(log, rtmrs, tee=...)``          the same for TDX; ``ccel.parse_table`` reads the ACPI table
* ``coco.entries(log)``                              ``uefi_event_logs`` as CoCo's policies read them
* ``facts.facts(log, bank)``                         what may be claimed from event data
* ``cel``, ``ima``, ``dstack``                       the other formats
"""
