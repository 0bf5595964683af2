"""What users of Lethe import: the Recipe contract, policies and the verification of proofs."""
