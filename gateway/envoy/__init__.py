"""Envoy resources rendered from the topology; the only code that builds Envoy configuration."""
