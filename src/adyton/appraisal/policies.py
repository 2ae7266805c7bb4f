"""The attestation policies that hold where a tenant has set none. They behave as CoCo's defaults do (kbs-protocol 2.6).

Each starts from the values that say *nothing good is known*: executables 33, hardware 97, configuration 36. Only what
matches reference values raises them, so a tenant without reference values accepts nothing. Two idioms: a measured value
must be **in** a list of accepted ones; a property must **equal** one value.

They name every place of ``input`` that they read in full, so that their results can be remembered. Texts are constants
because this floor opens no file. A TEE without rules here stays where it starts, contraindicated.
"""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_ID = "default"

DEFAULT_CPU = """\
package policy

import rego.v1

# What is claimed for each aspect; 2 and 3 affirm, 32 and more warn, 96 and more condemn (AR4SI).
trust_claims := {
	"executables": executables,
	"hardware": hardware,
	"configuration": configuration,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

default executables := 33

default hardware := 97

default configuration := 36

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

# What the init data's agent policy says about the workload: bound to the evidence, and enforced by the guest.
extensions := [{
	"name": "ear.trustee.identifiers",
	"key": -18,
	"value": {"validated": object.union(images, users)},
}]

images := {"container_images": found} if {
	found := [image |
		some container in input.init_data_claims.agent_policy_claims.containers
		image := container.OCI.Annotations["io.kubernetes.cri.image-name"]
	]
	count(found) > 0
} else := {}

users := {"container_uids": found} if {
	found := [user |
		some container in input.init_data_claims.agent_policy_claims.containers
		user := container.OCI.Process.User.UID
	]
	count(found) > 0
} else := {}
"""

DEFAULTS: Mapping[str, str] = {"cpu": DEFAULT_CPU}
"""By class of the evidence. A class without a default is refused until its owner sets a policy."""

RESOURCE_ALLOW_AFFIRMING = """\
package policy

import rego.v1

default allow := false

allow if {
	count(input.submods) > 0
	every submodule in input.submods {
		submodule["ear.status"] == "affirming"
	}
}
"""
