"""The rules of the default policy for CPUs, TEE by TEE (kbs-protocol 2.6): Rego texts that ``policies`` puts together.

For ``sample``, ``snp``, ``tdx``, both Azure vTPMs, ``tpm`` and ``se`` they behave as CoCo's defaults do, and ask for
reference values by CoCo's names. The other TEEs CoCo leaves without rules; theirs are Adyton's, and only what a reference value
names raises them: ``executables`` needs the measurement, ``hardware`` the platform (its TCB, or the firmware where no
vendor publishes levels), ``configuration`` at least that nobody can look inside.

Every place of ``input`` is written in full, so that results can be remembered. Every rule asks for something of its own
TEE's, so of all these rules only those of the one whose claims are there can hold: ``input.adyton`` is everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping

INTEL_VENDOR = "939a7233f79c4ca9940a0db3957f0607"

SNP = """\
# AMD SEV-SNP: what was launched is one of the accepted guests.
executables := 3 if {
	input.snp.measurement in query_reference_value("snp_launch_measurement")
}

# AMD SEV-SNP: every part of the platform's firmware is of an accepted version.
hardware := 2 if {
	input.snp.reported_tcb_bootloader in query_reference_value("snp_bootloader")
	input.snp.reported_tcb_microcode in query_reference_value("snp_microcode")
	input.snp.reported_tcb_snp in query_reference_value("snp_snp_svn")
	input.snp.reported_tcb_tee in query_reference_value("snp_tee_svn")
}

# AMD SEV-SNP: 2 if platform and guest policy are exactly as published; 3 if at least nobody can look inside.
configuration := 2 if {
	input.snp.policy_debug_allowed == false
	input.snp.policy_migrate_ma == false
	input.snp.platform_smt_enabled == query_reference_value("snp_smt_enabled")
	input.snp.platform_tsme_enabled == query_reference_value("snp_tsme_enabled")
	input.snp.policy_abi_major == query_reference_value("snp_guest_abi_major")
	input.snp.policy_abi_minor == query_reference_value("snp_guest_abi_minor")
	input.snp.policy_single_socket == query_reference_value("snp_single_socket")
	input.snp.policy_smt_allowed == query_reference_value("snp_smt_allowed")
} else := 3 if {
	input.snp.policy_debug_allowed == false
	input.snp.policy_migrate_ma == false
}
"""

TDX = f"""\
# Intel TDX: 3 if kernel and command line are the published ones too, 4 if the two registers are.
executables := 3 if {{
	input.tdx.quote.body.rtmr_1 in query_reference_value("rtmr_1")
	input.tdx.quote.body.rtmr_2 in query_reference_value("rtmr_2")
	query_reference_value("tdvfkernel") in input.adyton.boot.kernel
	query_reference_value("tdvfkernelparams") in input.adyton.boot.parameters
}} else := 4 if {{
	input.tdx.quote.body.rtmr_1 in query_reference_value("rtmr_1")
	input.tdx.quote.body.rtmr_2 in query_reference_value("rtmr_2")
}}

# Intel TDX: Intel's quoting enclave, a platform that is up to date, an accepted firmware of the guest.
hardware := 2 if {{
	input.tdx.quote.header.tee_type == "81000000"
	input.tdx.quote.header.vendor_id == "{INTEL_VENDOR}"
	input.tdx.quote.body.mr_td in query_reference_value("mr_td")
	input.tdx.tcb_status == "UpToDate"
	input.tdx.collateral_expiration_status == "0"
}}

# Intel TDX: no debugging, and accepted features.
configuration := 2 if {{
	input.tdx.td_attributes.debug == false
	input.tdx.quote.body.xfam in query_reference_value("xfam")
}}
"""

AZ_SNP = """\
# SEV-SNP behind Azure's paravisor: accepted paravisor, accepted guest.
executables := 3 if {
	input["az-snp-vtpm"].measurement in query_reference_value("measurement")
	input["az-snp-vtpm"].tpm.pcr11 in query_reference_value("snp_pcr11")
}

# SEV-SNP behind Azure's paravisor: every part of the platform's firmware is of an accepted version.
hardware := 2 if {
	input["az-snp-vtpm"].reported_tcb_bootloader in query_reference_value("tcb_bootloader")
	input["az-snp-vtpm"].reported_tcb_microcode in query_reference_value("tcb_microcode")
	input["az-snp-vtpm"].reported_tcb_snp in query_reference_value("tcb_snp")
	input["az-snp-vtpm"].reported_tcb_tee in query_reference_value("tcb_tee")
}

# SEV-SNP behind Azure's paravisor: platform and guest policy as published, and nobody can look inside.
configuration := 2 if {
	input.adyton.debug == false
	input["az-snp-vtpm"].platform_smt_enabled in query_reference_value("smt_enabled")
	input["az-snp-vtpm"].platform_tsme_enabled in query_reference_value("tsme_enabled")
	input["az-snp-vtpm"].policy_abi_major in query_reference_value("abi_major")
	input["az-snp-vtpm"].policy_abi_minor in query_reference_value("abi_minor")
	input["az-snp-vtpm"].policy_single_socket in query_reference_value("single_socket")
	input["az-snp-vtpm"].policy_smt_allowed in query_reference_value("smt_allowed")
}
"""

AZ_TDX = f"""\
# TDX behind Azure's paravisor: accepted guest.
executables := 3 if {{
	input["az-tdx-vtpm"].tpm.pcr11 in query_reference_value("tdx_pcr11")
}}

# TDX behind Azure's paravisor: Intel's quoting enclave, a platform that is up to date, an accepted paravisor.
hardware := 2 if {{
	input["az-tdx-vtpm"].quote.header.tee_type == "81000000"
	input["az-tdx-vtpm"].quote.header.vendor_id == "{INTEL_VENDOR}"
	input["az-tdx-vtpm"].quote.body.mr_td in query_reference_value("mr_td")
	input["az-tdx-vtpm"].tcb_status == "UpToDate"
}}

# TDX behind Azure's paravisor: no debugging, and accepted features.
configuration := 2 if {{
	input.adyton.debug == false
	input["az-tdx-vtpm"].quote.body.xfam in query_reference_value("xfam")
}}
"""

TPM = """\
# A TPM: accepted guest, and a key that its owner lists.
executables := 3 if {
	input.tpm.tpm.pcr11 in query_reference_value("tpm_pcr11")
	input.tpm.ak_public in query_reference_value("trusted_aks")
}

# A TPM says nothing of the machine around it.
hardware := 2 if {
	input.tpm
}

configuration := 0 if {
	input.tpm
}
"""

SE = """\
# IBM Secure Execution: that it verified says all; image and host are compared by the verifier.
executables := 3 if {
	input.se
}

hardware := 2 if {
	input.se
}

configuration := 2 if {
	input.se
}
"""

SAMPLE = """\
# CoCo's sample: anybody can write it. Only a broker that was told to believe it ever sees any.
executables := 3 if {
	input.sample.launch_digest in query_reference_value("launch_digest")
}

hardware := 2 if {
	input.sample.svn in query_reference_value("svn")
	input.sample.platform_version.major == query_reference_value("major_version")
	is_number(input.sample.platform_version.minor)
	is_number(query_reference_value("minimum_minor_version"))
	input.sample.platform_version.minor >= query_reference_value("minimum_minor_version")
}

configuration := 2 if {
	input.sample.debug == false
}
"""

SGX = f"""\
# Intel SGX: an accepted enclave.
executables := 3 if {{
	input.sgx.body.mr_enclave in query_reference_value("sgx_mr_enclave")
}}

# Intel SGX: Intel's quoting enclave, and a platform that is up to date, or in a state that its owner lists.
hardware := 2 if {{
	input.sgx.header.vendor_id == "{INTEL_VENDOR}"
	input.sgx.collateral_expiration_status == "0"
	input.sgx.tcb_status in query_reference_value("sgx_tcb_status")
}}

# Intel SGX: 2 if product and version are published ones too; 3 if at least nobody can look inside.
configuration := 2 if {{
	input.sgx
	input.adyton.debug == false
	input.sgx.body.isv_prod_id in query_reference_value("sgx_isv_prod_id")
	input.sgx.body.isv_svn in query_reference_value("sgx_isv_svn")
}} else := 3 if {{
	input.sgx
	input.adyton.debug == false
}}
"""

CSV = """\
# Hygon CSV: an accepted guest.
executables := 3 if {
	input.csv.measure in query_reference_value("csv_measure")
}

# Hygon CSV: Hygon publishes no levels; the firmware that made the platform's key is of an accepted version.
hardware := 2 if {
	input.csv
	input.adyton.tcb.firmware_api in query_reference_value("csv_firmware_api")
}

# Hygon CSV: 2 if sharing keys and migration are forbidden as well; 3 if at least nobody can look inside.
configuration := 2 if {
	input.csv.policy.nodbg == 1
	input.csv.policy.noks == 1
	input.csv.policy.nosend == 1
} else := 3 if {
	input.csv.policy.nodbg == 1
}
"""

CCA = """\
# Arm CCA: an accepted realm.
executables := 3 if {
	input.cca.realm["cca-realm-initial-measurement"] in query_reference_value("cca_realm_initial_measurement")
}

# Arm CCA: an accepted platform, all of whose firmware is accepted.
hardware := 2 if {
	input.cca.platform["cca-platform-implementation-id"] in query_reference_value("cca_implementation_id")
	count(input.cca.platform["cca-platform-sw-components"]) > 0
	every component in input.cca.platform["cca-platform-sw-components"] {
		component["measurement-value"] in query_reference_value("cca_platform_sw_components")
	}
}

# Arm CCA: 2 if the platform's configuration is a published one too; 3 if at least the platform is secured.
configuration := 2 if {
	input.cca
	input.adyton.debug == false
	input.cca.platform["cca-platform-config"] in query_reference_value("cca_platform_config")
} else := 3 if {
	input.cca
	input.adyton.debug == false
}
"""

NITRO = """\
# AWS Nitro: image, kernel with boot image, and application are accepted ones.
executables := 3 if {
	input.nitro.pcrs["0"] in query_reference_value("nitro_pcr0")
	input.nitro.pcrs["1"] in query_reference_value("nitro_pcr1")
	input.nitro.pcrs["2"] in query_reference_value("nitro_pcr2")
}

# AWS Nitro: the document says nothing of the hypervisor's version; the parent's role or instance is an accepted one.
hardware := 2 if {
	input.nitro.pcrs["3"] in query_reference_value("nitro_pcr3")
} else := 2 if {
	input.nitro.pcrs["4"] in query_reference_value("nitro_pcr4")
}

# AWS Nitro: 2 if the image was signed by an accepted key; 3 if at least nobody can look inside.
configuration := 2 if {
	input.nitro
	input.adyton.debug == false
	input.nitro.pcrs["8"] in query_reference_value("nitro_pcr8")
} else := 3 if {
	input.nitro
	input.adyton.debug == false
}
"""

HYPERENCLAVE = """\
# HyperEnclave: an accepted enclave.
executables := 3 if {
	input.hyperenclave.mrenclave in query_reference_value("hyperenclave_mr_enclave")
}

# HyperEnclave: an accepted monitor, as the TPM measured it.
hardware := 2 if {
	input.hyperenclave.monitor_measurement in query_reference_value("hyperenclave_monitor_measurement")
}

# HyperEnclave: 2 if product and version are published ones too; 3 if at least nobody can look inside.
configuration := 2 if {
	input.hyperenclave
	input.adyton.debug == false
	input.hyperenclave.isvprodid in query_reference_value("hyperenclave_isv_prod_id")
	input.hyperenclave.isvsvn in query_reference_value("hyperenclave_isv_svn")
} else := 3 if {
	input.hyperenclave
	input.adyton.debug == false
}
"""

CPU_RULES: Mapping[str, str] = {
    "snp": SNP,
    "tdx": TDX,
    "az-snp-vtpm": AZ_SNP,
    "az-tdx-vtpm": AZ_TDX,
    "tpm": TPM,
    "se": SE,
    "sgx": SGX,
    "csv": CSV,
    "cca": CCA,
    "nitro": NITRO,
    "hyperenclave": HYPERENCLAVE,
    "sample": SAMPLE,
}
"""By TEE."""
