"""AMD SEV-SNP: reports, endorsements, verification, launch measurement. Pure."""
