"""VAEs beyond the plain ELBO."""
