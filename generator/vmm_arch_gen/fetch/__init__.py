"""What is fetched or built once and kept outside the checkout: Debian's packages, above all."""
